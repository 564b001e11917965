package supervisor

import (
	"slices"
	"time"
)

// A client whose connection breaks off, because the supervisor has died or was replaced
// meanwhile, asks the next one again, with the same request. What was heard is saved with
// the unit, in the same moment as what it has brought about. So a request that is heard
// twice is carried out once, and its outcome is judged by what was there when it was
// heard first.

// An errand is what somebody wants of a unit.
type errand struct {
	unit string
	wait bool   // for the outcome
	id   string // the client's name for this request; "": it will not be repeated
}

// A heard is an errand that was taken.
type heard struct {
	ID   string
	At   time.Time
	Upto uint64 // the newest generation there was
}

const (
	// heardKept is how many errands of a unit are remembered: more than are likely to be
	// under way when a supervisor dies.
	heardKept = 16
	// maxErrandID bounds what a client may have us save.
	maxErrandID = 64
)

// recallErrand is the errand with that id, if it was taken before.
func (u *unit) recallErrand(id string) (heard, bool) {
	i := slices.IndexFunc(u.heard, func(h heard) bool { return h.ID == id })
	if id == "" || i < 0 {
		return heard{}, false
	}
	return u.heard[i], true
}

// noteErrand remembers an errand; the unit is then to be saved.
func (u *unit) noteErrand(h heard) {
	if h.ID == "" {
		return
	}
	u.heard = append(u.heard[max(0, len(u.heard)-heardKept+1):], h)
}
