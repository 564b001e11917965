package machine

import (
	"fmt"
	"slices"
)

// A step is one event on its way through a unit.
type step struct {
	*Unit
	now   Instant
	out   []Action // effects, in order
	notes []Report // what happened to replacements
	lost  int      // the instance that has lost a run; 0 if none has
}

// Step takes one event in at now and returns what to do about it, in order. Save
// the unit before doing any of it. Reports come last.
func (u *Unit) Step(now Instant, ev Event) []Action {
	var room [8]Condition // spares an allocation
	was := u.conditions(room[:0])
	s := step{Unit: u, now: now}
	gen := s.absorb(ev)
	s.settle()
	return s.finish(was, gen)
}

// absorb records what is now true and decides nothing. It returns the generation
// of a run that has gone, else 0.
func (s *step) absorb(ev Event) uint64 {
	switch ev := ev.(type) {
	case Start:
		s.Up = true
		s.forgive()
	case Stop:
		s.Up = false
	case Replace:
		s.stale(ev.Upto)
	case Respec:
		s.respec(ev)
	case Scale:
		s.Spec.Instances, s.Scaled = max(ev.Instances, 1), true
		s.grow()
	case Pause:
		s.Paused = true
	case Resume:
		s.Paused = false
	case Connected:
		s.connected(ev.Instance)
	case Execed:
		if run := s.run(ev.Instance, ev.Gen); run != nil && !s.Spec.Notify {
			s.ready(run)
		}
	case Notified:
		if run := s.run(ev.Instance, ev.Gen); run != nil {
			s.notified(run, ev)
		}
	case SpawnFailed:
		s.gone(ev.Instance, ev.Gen, Status{Code: 1}, ev.Because, ev.Jitter)
		return ev.Gen
	case Exited:
		s.gone(ev.Instance, ev.Gen, ev.Status, ev.Status.String(), ev.Jitter)
		return ev.Gen
	case Emptied:
		if in := s.instance(ev.Instance); in != nil && in.EmptyBy != 0 {
			in.EmptyBy = s.now
		}
	case Tick:
	default:
		panic(fmt.Sprintf("machine: unknown event %T", ev))
	}
	return 0
}

// forgive forgets what went wrong, and what is about to: an operator wants another
// try, and one that is leaving already must not have the last word.
func (s *step) forgive() {
	for i := range s.Instances {
		in := &s.Instances[i]
		in.forget()
		for j := range in.Runs {
			in.Runs[j].Forgiven = !in.Runs[j].live()
		}
	}
}

func (in *Instance) forget() { in.Fails, in.Until, in.Ended, in.Failed = 0, 0, false, false }

func (s *step) respec(ev Respec) {
	s.Spec, s.Scaled = ev.Spec, ev.Scaled
	s.grow()
	for i := range s.Instances {
		if s.Spec.OnDemand { // nothing on demand ends for good
			s.Instances[i].Ended, s.Instances[i].Failed = false, false
		}
	}
	if ev.Upto > 0 {
		s.stale(ev.Upto)
	}
}

func (s *step) grow() {
	for len(s.Instances) < s.Spec.Instances {
		s.Instances = append(s.Instances, Instance{})
	}
}

// connected: the watch has disarmed itself. A caller on a shared socket counts for
// every instance; who is attended already does not need him.
func (s *step) connected(n int) {
	if n == 0 {
		s.Watched = false
		for i := range s.Instances {
			s.Instances[i].Called = true
		}
	} else if in := s.instance(n); in != nil {
		in.Watched, in.Called = false, true
	}
}

func (s *step) ready(run *Run) {
	if run.State == Starting {
		run.State, run.ReadyAt, run.Deadline, run.Unready = Ready, s.now, s.after(run.Watchdog), ""
	}
}

func (s *step) notified(run *Run, ev Notified) {
	if ev.Watchdog > 0 {
		run.Watchdog = ev.Watchdog
	}
	if ev.Unready != "" && run.State == Starting {
		run.Unready = ev.Unready
	}
	if ev.Ready {
		s.ready(run)
	}
	if run.State == Ready && (ev.Alive || ev.Watchdog > 0) {
		run.Deadline = s.after(run.Watchdog)
	}
	if run.live() && ev.Trip {
		run.Fault, run.Because = Silent, "watchdog triggered by itself"
	} else if run.live() && ev.Stopping {
		run.State, run.Stale, run.Because, run.Deadline = Draining, false, "stopping by itself", s.after(s.Spec.StopTimeout)
	}
	if ev.Extend > 0 && run.Deadline != 0 {
		run.Deadline = max(run.Deadline, s.now.Add(ev.Extend))
	}
}

// gone: no process of the run is left. Whether to start another now is settle's
// business; here its failures are counted and policy speaks.
func (s *step) gone(n int, gen uint64, st Status, because string, jitter float64) {
	p := s.run(n, gen)
	if p == nil {
		return // old news
	}
	run, in := *p, s.instance(n)
	s.lost = n
	in.Runs = slices.DeleteFunc(in.Runs, func(r Run) bool { return r.Gen == gen })
	how := endingOf(run, st, s.Spec.Notify)
	switch {
	case run.Fault != "":
		because = run.Because + ": " + because
	case how == protocol && !run.Asked:
		because += " before readiness"
	}
	if !run.Asked || in.Until == 0 && !in.Ended { // why it waits is not the fault of one we asked to leave
		in.Because = because
	}
	if run.Asked || !s.wished(n) {
		return
	}
	if !run.Forgiven {
		s.count(in, run, how, jitter)
	}
	unrelieved := len(in.Runs) > 0 && in.Runs[0].Gen < gen && in.Runs[0].live() || in.Away && run.ReadyAt == 0
	if gen > s.Upto && (how != clean || unrelieved) {
		s.giveUp(n, gen, because)
	}
	if !run.Forgiven && !in.attended() {
		s.follow(in, how)
	}
}

// count counts failures in a row, and says how long they make it wait.
func (s *step) count(in *Instance, run Run, how ending, jitter float64) {
	healthy := run.ReadyAt != 0 && s.now >= run.ReadyAt.Add(s.Spec.Reset)
	if how == clean || healthy {
		in.Fails = 0
	}
	if how != clean {
		in.Fails++
		in.Until = s.now.Add(s.Spec.delay(in.Fails, jitter))
		if run.ReadyAt == 0 || s.now < run.ReadyAt.Add(minDelay) {
			in.Until = max(in.Until, s.now.Add(minDelay))
		}
	} else if !healthy { // once, so that one which leaves without accepting cannot spin
		in.Until = s.now.Add(max(s.Spec.delay(1, jitter), minDelay))
	}
}

// follow says what policy wants after the last run has ended by itself.
func (s *step) follow(in *Instance, how ending) {
	again := s.Spec.Restart.follows(how)
	if s.Spec.OnDemand {
		in.Called = in.Called || again // the demand stands
		return
	}
	in.Ended, in.Failed = !again, !again && how != clean
	if in.Ended {
		in.Until = 0
	}
}
