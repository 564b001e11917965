package machine

import (
	"slices"
	"time"
)

// moment is how long a connection may take that was on its way to a queue when the
// queue was steered away from (measured: none was later).
const moment = time.Millisecond

// steer shares new connections out: to those who serve, and to those whom a
// connection would start. If there is nobody of either kind, or if all are held by
// a pause, everybody gets the same: the queues hold. A place that is too many gets none.
func (s *step) steer() {
	if !s.Spec.Steered {
		if s.Weights != nil {
			s.Weights = nil
			for i := range s.Instances {
				s.Instances[i].FlushAt, s.Instances[i].Flushed = 0, false
			}
		}
		return
	}
	even := s.evenly()
	differs := len(s.Weights) != len(s.Instances)
	for i := range s.Instances {
		n, in := i+1, &s.Instances[i]
		was, is := s.weight(n), s.share(n, even)
		if is > 0 {
			in.FlushAt, in.Flushed = 0, false
		} else if was > 0 {
			in.FlushAt, in.Flushed = s.now.Add(moment), false
		}
		differs = differs || was != is
	}
	if !differs {
		return
	}
	s.Weights = make([]int, len(s.Instances))
	for i := range s.Weights {
		s.Weights[i] = s.share(i+1, even)
	}
	s.out = slices.Insert(s.out, 0, Action(Steer{Weights: slices.Clone(s.Weights)}))
}

// weight is the share that instance n got when Steer was last emitted. If that is not known, it
// may have got some; a new instance has got none.
func (u *Unit) weight(n int) int {
	switch {
	case u.Weights == nil:
		return 1
	case n > len(u.Weights):
		return 0
	}
	return u.Weights[n-1]
}

// share is what instance n should get.
func (u *Unit) share(n int, even bool) int {
	if even && n <= u.Spec.Instances || u.serves(n) || u.waits(n, u.instance(n)) {
		return 1
	}
	return 0
}

// evenly reports whether everybody gets the same: all are held, or nobody could take more.
func (u *Unit) evenly() bool {
	for i := range u.Instances {
		if u.serves(i+1) || u.waits(i+1, &u.Instances[i]) {
			return u.Paused
		}
	}
	return true
}

// flush moves the queues of those who were steered away and have nobody left.
func (s *step) flush() {
	if !s.Spec.CanFlush {
		return
	}
	for i := range s.Instances {
		in := &s.Instances[i]
		if !s.flushable(i+1) || in.FlushAt > s.now || s.share(i+1, s.evenly()) > 0 {
			continue
		}
		s.out = append(s.out, Flush{Instance: i + 1})
		in.FlushAt = 0
		if i+1 > s.Spec.Instances { // not before this has been done: a crash now makes Recover do it again
			in.FlushAt, in.Flushed = s.now.Add(moment), true
		}
	}
}

// flushable reports whether the queue of instance n can go to its siblings, as soon as
// FlushAt is there. Somebody must be there to take it, else the kernel resets the connections. Nobody
// may be in the instance: a program does not expect that its listener is shut down.
func (u *Unit) flushable(n int) bool {
	in := u.instance(n)
	return u.Spec.CanFlush && in.FlushAt != 0 && !in.Flushed && len(in.Runs) == 0 && u.siblingTakes(n)
}

// siblingTakes reports whether a sibling can take the queue of instance n: one that
// serves, or, where n is one too many and will not be back, one that a connection starts.
func (u *Unit) siblingTakes(n int) bool {
	if u.siblingServes(n) {
		return true
	}
	for i := range u.Instances {
		if n > u.Spec.Instances && i+1 != n && u.waits(i+1, &u.Instances[i]) {
			return true
		}
	}
	return false
}

// serves reports whether instance n has a ready run which is to get connections.
func (u *Unit) serves(n int) bool {
	in := u.instance(n)
	return u.wished(n) && !in.Away && in.ready()
}

// siblingServes reports whether an instance other than n serves.
func (u *Unit) siblingServes(n int) bool {
	for i := range u.Instances {
		if i+1 != n && u.serves(i+1) {
			return true
		}
	}
	return false
}

// waits reports whether instance n waits for a caller.
func (u *Unit) waits(n int, in *Instance) bool {
	return u.wished(n) && !u.Paused && u.Spec.OnDemand && len(in.Runs) == 0 && in.Until == 0 && !in.Called
}

// spent reports whether instance n, one too many, can vanish: nobody is there, and
// nothing in its queue, as far as we can do anything about it.
func (u *Unit) spent(n int) bool {
	in := u.instance(n)
	known := !u.Spec.Steered || !u.Spec.CanFlush || u.weight(n) == 0 && in.FlushAt == 0
	return len(in.Runs) == 0 && known
}
