package machine

import "slices"

// What the oracle knows about shares, queues and exclusive replacement.

func (o *oracle) serves(w *world, n int) bool {
	if !o.wished(w, n) || o.places[n].away {
		return false
	}
	for i := range w.procs {
		if p := &w.procs[i]; p.n == n && p.ready && p.live() {
			return true
		}
	}
	return false
}

func (o *oracle) siblingServes(w *world, n int) bool {
	for k := 1; k <= maxInstances; k++ {
		if k != n && o.serves(w, k) {
			return true
		}
	}
	return false
}

// idle: a connection to the instance would start it.
func (o *oracle) idle(w *world, n int) bool {
	in := w.u.instance(n)
	all, _ := o.count(w, n)
	return in != nil && o.wished(w, n) && o.spec.OnDemand && all == 0 && in.Until == 0 && !in.Called
}

// siblingTakes: who is one too many leaves his queue also to one who waits for callers.
func (o *oracle) siblingTakes(w *world, n int) bool {
	if o.siblingServes(w, n) {
		return true
	}
	for k := 1; k <= maxInstances; k++ {
		if n > o.spec.Instances && k != n && !w.paused && o.idle(w, k) {
			return true
		}
	}
	return false
}

// replacing counts the instances other than n whose replacement is under way.
func (o *oracle) replacing(w *world, n int) (many int) {
	for k := 1; k <= maxInstances; k++ {
		if _, live := o.count(w, k); k != n && (live > 1 || o.places[k].away) {
			many++
		}
	}
	return many
}

// judgeAway follows exclusive replacements: only where it was asked for, and no more
// of them at a time than the specification says.
func (o *oracle) judgeAway(w *world) {
	for n := 1; n <= maxInstances; n++ {
		in := w.u.instance(n)
		o.places[n].away = o.places[n].away && in != nil && in.Away
	}
	for n := 1; n <= maxInstances; n++ {
		pl, in := &o.places[n], w.u.instance(n)
		away := in != nil && in.Away
		if away && !pl.away {
			switch {
			case !o.spec.Exclusive || w.paused:
				w.fail("instance %d is taken away, although two may coexist or nobody may come", n)
			case pl.successors == 0:
				w.fail("instance %d is taken away, and nobody has asked for it", n)
			}
		}
		pl.begun, pl.left = away && !pl.away, false
		pl.away = away
	}
}

// judgeWaits, when all the books are written: not too many go at a time, and who waits
// for an empty queue has somebody who looks.
func (o *oracle) judgeWaits(w *world) {
	for n := 1; n <= maxInstances; n++ {
		pl, in := &o.places[n], w.u.instance(n)
		if pl.begun && o.replacing(w, n) >= max(o.spec.Step, 1) {
			w.fail("too many replacements at a time")
		}
		if pl.left && !o.siblingServes(w, n) && o.replacing(w, n) > 0 {
			w.fail("the last one goes while another is on its way")
		}
		if in == nil || in.EmptyBy == 0 {
			pl.emptyBy, pl.emptied = 0, false
		} else if pl.emptyBy == 0 {
			w.fail("instance %d waits for an empty queue, and nobody looks", n)
		}
	}
}

// judgeEmptying: the only, or last, run of an instance whose traffic others can take
// is told to leave.
func (o *oracle) judgeEmptying(w *world, p *proc) {
	if !o.spec.Steered || !p.ready || !o.siblingServes(w, p.n) {
		return
	}
	for i := range w.procs { // one is enough for what is queued
		if other := &w.procs[i]; other != p && other.n == p.n && other.ready && other.live() {
			return
		}
	}
	if pl := &o.places[p.n]; pl.emptyBy == 0 || !pl.emptied && w.now < pl.emptyBy {
		w.fail("run %d.%d leaves before its queue is empty", p.n, p.gen)
	}
}

// judgeSteer: the shares are what they should be, and are set exactly when they change.
func (o *oracle) judgeSteer(w *world, actions []Action, recovering bool) {
	var last *Steer
	for i, a := range actions {
		if a, ok := a.(Steer); ok {
			if i > 0 {
				w.fail("steered late, or twice")
			}
			last = &a
		}
	}
	if !o.spec.Steered {
		if last != nil || w.u.Weights != nil {
			w.fail("steered, and it cannot be")
		}
		return
	}
	want := make([]int, len(w.u.Instances))
	some := false
	for i := range want {
		if n := i + 1; o.serves(w, n) || o.idle(w, n) {
			want[i], some = 1, true
		}
	}
	if !some || w.paused {
		for i := range min(len(want), o.spec.Instances) {
			want[i] = 1
		}
	}
	if !slices.Equal(w.u.Weights, want) {
		w.fail("weights %v, by the books %v", w.u.Weights, want)
	}
	changed := !slices.Equal(w.q.weights, want) || recovering
	if changed != (last != nil) || last != nil && !slices.Equal(last.Weights, want) {
		w.fail("steering %v from %v, wanted %v", last, w.q.weights, want)
	}
}

func (o *oracle) judgeFlush(w *world, a Flush) {
	zero := &w.q.zero[a.Instance]
	all, _ := o.count(w, a.Instance)
	switch {
	case !o.spec.CanFlush || !o.spec.Steered:
		w.fail("flush, and it cannot be")
	case all > 0:
		w.fail("flush %d, and somebody is there", a.Instance)
	case !o.siblingTakes(w, a.Instance):
		w.fail("flush %d, and nobody can take it", a.Instance)
	case w.q.weights == nil || w.q.open(a.Instance) || w.now < zero.since.Add(moment):
		w.fail("flush %d, and it has not been steered away for long", a.Instance)
	case zero.flushed:
		w.fail("flush %d twice", a.Instance)
	}
	zero.flushed = true
}

// judgeQueues: what waits where nobody is must go to where somebody is, in time.
func (o *oracle) judgeQueues(w *world) {
	at, ok := w.u.Deadline()
	for n := 1; n <= maxInstances; n++ {
		if due, must := o.unflushed(w, n); must && (!ok || at > max(due, w.now)) {
			w.fail("the queue of instance %d is forgotten", n)
		}
		if pl := &o.places[n]; pl.emptyBy != 0 && (!ok || at > pl.emptyBy) {
			w.fail("the end of waiting for an empty queue will be missed")
		}
	}
}

// reset: what a supervisor did last before its death may not have been done.
func (q *queues) reset(now Instant) {
	q.asked, q.again = [maxInstances + 1]bool{}, true
	for k := range q.zero {
		q.zero[k].since, q.zero[k].flushed = now, false
	}
}
