package machine

import (
	"strconv"
	"time"
)

// settle closes the gap between what is and what is wished.
func (s *step) settle() {
	for i := range s.Instances {
		s.settleInstance(i+1, &s.Instances[i])
	}
	s.replaceNext()
	s.watch()
	for len(s.Instances) > s.Spec.Instances && len(s.Instances[len(s.Instances)-1].Runs) == 0 {
		s.Instances = s.Instances[:len(s.Instances)-1]
	}
}

func (s *step) settleInstance(n int, in *Instance) {
	newest := 0 // the newest run that is ready
	for i := range in.Runs {
		s.patience(n, &in.Runs[i])
		if in.Runs[i].State == Ready {
			newest = i
		}
	}
	for i := range in.Runs[:newest] {
		if old := &in.Runs[i]; old.live() {
			s.note(n, in.Runs[newest].Gen, "replaced generation "+strconv.FormatUint(old.Gen, 10))
			s.leave(n, old, true, "replaced")
		}
	}
	if !s.wished(n) {
		because := "stop"
		if s.Up {
			because = "fewer instances"
		}
		for i := range in.Runs {
			if in.Runs[i].live() {
				s.leave(n, &in.Runs[i], true, because)
			}
		}
		in.forget()
		in.Called = false
		return
	}
	if in.Until <= s.now {
		in.Until = 0
	}
	if !s.Spec.OnDemand || in.attended() {
		in.Called = false
	}
	if s.vacant(n, in) && (in.Called || !s.Spec.OnDemand) {
		s.spawn(n, in)
	}
}

// vacant reports whether nobody is there and nothing forbids a start.
func (s *step) vacant(n int, in *Instance) bool {
	return s.wished(n) && len(in.Runs) == 0 && !in.Ended && in.Until == 0
}

// patience ends where a deadline has passed.
func (s *step) patience(n int, run *Run) {
	passed := run.Deadline != 0 && run.Deadline <= s.now
	switch {
	case run.State == Starting && passed:
		run.Fault, run.Because = TimedOut, "start timeout "+s.Spec.StartTimeout.String()
	case run.State == Ready && passed:
		run.Fault, run.Because = Silent, "watchdog "+run.Watchdog.String()
	case run.State == Draining && passed:
		if !run.told() {
			run.Fault, run.Because = TimedOut, "stop timeout "+s.Spec.StopTimeout.String()
		}
		run.State, run.Deadline = Killing, 0
		s.out = append(s.out, Kill{Instance: n, Gen: run.Gen})
	}
	if run.live() && run.Fault != "" {
		s.leave(n, run, false, run.Because)
	}
}

func (s *step) leave(n int, run *Run, asked bool, because string) {
	run.State, run.Asked, run.Stale, run.Because, run.Deadline = Draining, asked, false, because, s.after(s.Spec.StopTimeout)
	s.out = append(s.out, Terminate{Instance: n, Gen: run.Gen, Abort: run.Fault == Silent})
}

func (s *step) spawn(n int, in *Instance) {
	s.LastGen++
	in.Runs = append(in.Runs, Run{Gen: s.LastGen, State: Starting, Watchdog: s.Spec.Watchdog, Deadline: s.after(s.Spec.StartTimeout)})
	in.Called = false
	s.out = append(s.out, Spawn{Instance: n, Gen: s.LastGen})
}

// replaceNext spawns a successor beside one stale run, if none is on the way.
func (s *step) replaceNext() {
	next := 0
	for i := range s.Instances {
		runs := s.Instances[i].Runs
		for j := range runs {
			switch {
			case j+1 < len(runs) && runs[j].live():
				return // its successor has yet to succeed, or to leave
			case j == 0 && runs[j].Stale && next == 0:
				next = i + 1
			}
		}
	}
	if next > 0 {
		in := s.instance(next)
		s.note(next, in.Runs[0].Gen, "replacement begins: generation "+strconv.FormatUint(s.LastGen+1, 10))
		s.spawn(next, in)
	}
}

// watch asks for callers exactly where an instance waits for one.
func (s *step) watch() {
	somewhere := false
	for i := range s.Instances {
		in := &s.Instances[i]
		waits := s.Spec.OnDemand && s.vacant(i+1, in)
		somewhere = somewhere || waits
		s.arm(&in.Watched, waits && s.Spec.PerInstance, i+1)
	}
	s.arm(&s.Watched, somewhere && s.Spec.Shared, 0)
}

func (s *step) arm(watched *bool, want bool, n int) {
	if want && !*watched {
		s.out = append(s.out, Watch{Instance: n})
	} else if !want && *watched {
		s.out = append(s.out, Unwatch{Instance: n})
	}
	*watched = want
}

// after is the deadline d from now; 0 is never.
func (s *step) after(d time.Duration) Instant {
	if d <= 0 {
		return 0
	}
	return s.now.Add(d)
}
