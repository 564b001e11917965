package machine

import (
	"slices"
	"strconv"
	"time"
)

// stale marks what was running when the request was made. Who leaves already needs
// no successor.
func (s *step) stale(upto uint64) {
	s.forgive()
	upto = min(upto, s.LastGen)
	s.Upto = max(s.Upto, upto)
	for i := range s.Instances {
		runs := s.Instances[i].Runs
		for j := range runs {
			if runs[j].Gen <= upto && runs[j].live() {
				runs[j].Stale, runs[j].Kept = true, ""
			}
		}
	}
}

// replace spawns successors beside stale runs, no more than Spec.Step at a time.
func (s *step) replace() {
	turns := s.turns()
	for i := range s.Instances {
		in := &s.Instances[i]
		if turns > 0 && s.toReplace(i+1) && !in.replacing() {
			turns--
			s.note(i+1, in.Runs[0].Gen, "replacement begins: generation "+strconv.FormatUint(s.LastGen+1, 10))
			s.spawn(i+1, in)
		}
	}
}

// yield lets stale runs leave before their successors come: first those which serve
// nobody yet, then, where siblings can take the traffic, those whose queue is empty. Where
// no sibling can, the queue holds, and they go at once; but not while one is about to come back.
func (s *step) yield() {
	if !s.Spec.Exclusive {
		return
	}
	for i := range s.Instances { // who may not leave after all gives back a turn before anybody takes one
		if in := &s.Instances[i]; s.toReplace(i+1) && !s.mayYield(i+1) {
			in.Away, in.EmptyBy = false, 0
		}
	}
	for i := range s.Instances {
		s.yieldIn(i+1, Starting)
	}
	for i := range s.Instances {
		s.yieldIn(i+1, Ready)
	}
}

// mayYield reports whether the oldest run of instance n may leave before its successor
// comes, as far as the others are concerned.
func (s *step) mayYield(n int) bool {
	in := s.instance(n)
	return len(in.Runs) == 1 && (in.Runs[0].State == Starting || s.siblingServes(n) || !s.siblingReplaced(n))
}

// yieldIn is yield for an instance whose run to be replaced is in the given state.
func (s *step) yieldIn(n int, state State) {
	in := s.instance(n)
	if !s.toReplace(n) || in.Runs[0].State != state {
		return
	}
	run := &in.Runs[0]
	switch {
	case !s.mayYield(n) || !in.Away && s.turns() <= 0: // not now, or not any more: it serves
		in.Away, in.EmptyBy = false, 0
		return
	case !in.Away:
		s.note(n, run.Gen, "replacement begins: generation "+strconv.FormatUint(run.Gen, 10)+" leaves first")
		in.Away = true
	}
	if state == Starting || s.emptied(n, in) {
		s.leave(n, run, true, "replaced")
		in.Called = s.Spec.OnDemand // it shall come back
	}
}

// turns is how many more instances may be replaced now. While paused nobody is: a
// successor could not come.
func (s *step) turns() int {
	if s.Paused {
		return 0
	}
	n := max(s.Spec.Step, 1)
	for i := range s.Instances {
		if s.wished(i+1) && s.Instances[i].replacing() {
			n--
		}
	}
	return n
}

// toReplace reports whether the oldest run of instance n is to be replaced.
func (s *step) toReplace(n int) bool {
	in := s.instance(n)
	return s.wished(n) && len(in.Runs) > 0 && in.Runs[0].Stale
}

// replacing reports whether the instance's successor has yet to succeed, or to leave.
func (in *Instance) replacing() bool {
	for i := range in.Runs {
		if i+1 < len(in.Runs) && in.Runs[i].live() {
			return true
		}
	}
	return in.Away
}

// siblingReplaced reports whether an instance other than n is being replaced, or waits
// for its queue to become empty: somebody must go on serving until it is done.
func (s *step) siblingReplaced(n int) bool {
	for i := range s.Instances {
		if in := &s.Instances[i]; i+1 != n && (s.wished(i+1) && in.replacing() || in.EmptyBy > s.now) {
			return true
		}
	}
	return false
}

// emptied reports whether the run of an instance that is steered away may leave,
// as far as its queue is concerned. Asked for the first time, it begins to wait.
func (s *step) emptied(n int, in *Instance) bool {
	switch {
	case !s.Spec.Steered || !s.siblingServes(n): // the queue will not become empty
	case in.EmptyBy == 0:
		in.EmptyBy = s.now.Add(s.Spec.emptyTimeout())
		s.out = append(s.out, AwaitEmpty{Instance: n})
		return false
	case in.EmptyBy > s.now:
		return false
	}
	in.EmptyBy = 0
	return true
}

// emptyTimeout is how long a queue may take to become empty.
func (s *Spec) emptyTimeout() time.Duration {
	if s.StopTimeout > 0 {
		return s.StopTimeout
	}
	return time.Second
}

// back ends what yield and dismiss have begun, where there is nothing more to wait for.
func (s *step) back(n int, in *Instance) {
	if in.Away {
		stays := slices.ContainsFunc(in.Runs, func(r Run) bool {
			return r.State == Ready && !r.Stale || r.Stale && (!s.Spec.Exclusive || s.Paused)
		})
		in.Away = s.wished(n) && !stays && !in.Ended && !s.waits(n, in)
	}
	surplus := s.Up && n > s.Spec.Instances && !s.Spec.CanFlush
	if !s.Spec.Steered || !in.ready() || !in.Away && !surplus {
		in.EmptyBy = 0
	}
}

// giveUp ends replacing: the new version, generation gen of instance n, has failed, so
// that what is left of the old one stays, there and everywhere. A successor that is
// already on the way elsewhere may still succeed.
func (s *step) giveUp(n int, gen uint64, because string) {
	for i := range s.Instances {
		in := &s.Instances[i]
		text := "replacement failed: " + because
		if i+1 != n {
			text = "replacement cancelled: instance " + strconv.Itoa(n) + ": " + because
		} else if in.Away { // nothing of the old one is left here: policy decides
			s.note(n, gen, text)
			in.Away = false
		}
		for j := range in.Runs {
			run := &in.Runs[j]
			stays := i+1 == n && run.live() && run.Gen < gen
			if run.Stale || stays {
				run.Kept = text
				if j == len(in.Runs)-1 {
					s.note(i+1, run.Gen, text)
				}
			}
			run.Stale = false
		}
	}
}
