package supervisor

import (
	"container/heap"

	"github.com/sockd/sockd/supervisor/internal/machine"
)

// An agenda knows which unit's deadline comes first.
type agenda struct{ heap appointments }

type appointments []*unit

func (a appointments) Len() int           { return len(a) }
func (a appointments) Less(i, j int) bool { return a[i].at < a[j].at }
func (a appointments) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].place, a[j].place = i+1, j+1
}
func (a *appointments) Push(x any) {
	u := x.(*unit)
	*a = append(*a, u)
	u.place = len(*a)
}
func (a *appointments) Pop() any {
	old := *a
	u := old[len(old)-1]
	old[len(old)-1] = nil
	*a = old[:len(old)-1]
	u.place = 0
	return u
}

// set notes that u wants a Tick at the time given, or, if not ok, none.
func (a *agenda) set(u *unit, at machine.Instant, ok bool) {
	switch {
	case !ok && u.place > 0:
		heap.Remove(&a.heap, u.place-1)
	case ok && u.place > 0:
		u.at = at
		heap.Fix(&a.heap, u.place-1)
	case ok:
		u.at = at
		heap.Push(&a.heap, u)
	}
}

// first is the earliest appointment.
func (a *agenda) first() (machine.Instant, bool) {
	if len(a.heap) == 0 {
		return 0, false
	}
	return a.heap[0].at, true
}

// due takes out the units whose time has come; handling them sets them anew.
func (a *agenda) due(now machine.Instant) []*unit {
	var due []*unit
	for len(a.heap) > 0 && a.heap[0].at <= now {
		due = append(due, heap.Pop(&a.heap).(*unit))
	}
	return due
}
