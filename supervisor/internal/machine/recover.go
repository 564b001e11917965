package machine

import (
	"slices"
	"time"
)

// A Held is a run that the keeper lists: alive, or dead and not yet acknowledged.
type Held struct {
	Instance int
	Gen      uint64
	Running  bool // its program has been executed and its end has not been seen
	Ended    bool // the news of its end is to come
	Signal   int  // the last signal sent to make it leave; 0 if none
}

// hearing is how long a run may still need to be heard that spoke while nobody listened.
const hearing = time.Second

// Recover squares a saved unit with the runs that the keeper lists, and returns
// what to do, as Step does. News that was not acknowledged comes as events right
// after. If nothing was saved, call it on New(spec) with Up set: it takes over
// what runs and loses no more than the failure counts.
func (u *Unit) Recover(now Instant, held []Held) []Action {
	s, was := step{Unit: u, now: now}, u.conditions(nil)
	s.Watched = false // nobody watches for this supervisor yet
	s.Weights = nil   // what was decided last may not have been done: steer again, and flush again
	for i := range s.Instances {
		in := &s.Instances[i]
		in.Watched = false
		in.EmptyBy = 0                    // nobody looks at its queue: ask again
		in.FlushAt, in.Flushed = 0, false // a moment after it is steered away again
		in.Runs = slices.DeleteFunc(in.Runs, func(r Run) bool {
			return r.State != Starting && find(held, i+1, r.Gen) == nil // its end was heard, or its keeper died
		})
		for j := range in.Runs {
			s.resume(i+1, &in.Runs[j], find(held, i+1, in.Runs[j].Gen))
		}
	}
	for _, h := range held {
		if !h.Ended { // of one that is not here the end was heard, and not acknowledged
			s.adopt(h)
		}
		s.LastGen = max(s.LastGen, h.Gen)
	}
	s.settle()
	return s.finish(was, 0)
}

func find(held []Held, n int, gen uint64) *Held {
	for i := range held {
		if held[i].Instance == n && held[i].Gen == gen {
			return &held[i]
		}
	}
	return nil
}

// resume repeats what was saved and not done.
func (s *step) resume(n int, run *Run, h *Held) {
	switch {
	case h == nil: // saved as intended and never born
		run.Deadline = s.after(s.Spec.StartTimeout)
		s.out = append(s.out, Spawn{Instance: n, Gen: run.Gen})
	case run.State == Killing && h.Signal != sigkill:
		s.out = append(s.out, Kill{Instance: n, Gen: run.Gen})
	case run.State == Draining && run.told() && h.Signal == 0:
		run.Deadline = s.after(s.Spec.StopTimeout)
		s.out = append(s.out, Terminate{Instance: n, Gen: run.Gen, Abort: run.Fault == Silent})
	default:
		s.hearFirst(run)
	}
}

// Overslept tells the unit that nobody has listened for a while, though its Deadline
// came: sockd, or the whole machine, was stopped.
func (u *Unit) Overslept(now Instant) {
	s := step{Unit: u, now: now}
	for i := range s.Instances {
		for j := range s.Instances[i].Runs {
			s.hearFirst(&s.Instances[i].Runs[j])
		}
	}
}

// hearFirst sees that a run which may have spoken while nobody listened is heard
// before it is judged.
func (s *step) hearFirst(run *Run) {
	if !run.live() || run.Deadline == 0 {
		return
	}
	grace := hearing
	if run.State == Ready {
		grace = run.Watchdog
	}
	run.Deadline = max(run.Deadline, s.now.Add(grace))
}

// adopt takes over a run that the saved unit does not know.
func (s *step) adopt(h Held) {
	if h.Instance < 1 || s.run(h.Instance, h.Gen) != nil {
		return
	}
	for len(s.Instances) < h.Instance {
		s.Instances = append(s.Instances, Instance{})
	}
	run := Run{Gen: h.Gen, State: Starting, Watchdog: s.Spec.Watchdog, Deadline: s.after(s.Spec.StartTimeout)}
	if h.Running { // whether it had said READY=1 is lost; a service that works must not be killed for that
		s.ready(&run)
	}
	if h.Signal != 0 {
		run.State, run.Asked, run.Deadline, run.Because = Draining, true, s.after(s.Spec.StopTimeout), "told before"
	}
	in := s.instance(h.Instance)
	at, _ := slices.BinarySearchFunc(in.Runs, h.Gen, func(r Run, gen uint64) int { return int(r.Gen) - int(gen) })
	in.Runs = slices.Insert(in.Runs, at, run)
}
