package machine

import (
	"strconv"
	"time"
)

// settle closes the gap between what is and what is wished. The order matters: who
// may be relied on is known before anybody is sent away, and queues are moved before
// anybody starts on their sockets.
func (s *step) settle() {
	for i := range s.Instances {
		s.relieve(i+1, &s.Instances[i])
		s.settleInstance(i+1, &s.Instances[i])
	}
	s.yield()
	for i := range s.Instances {
		s.dismiss(i+1, &s.Instances[i])
	}
	for n := len(s.Instances); n > s.Spec.Instances && s.spent(n); n-- {
		s.Instances = s.Instances[:n-1]
	}
	s.flush()
	for i := range s.Instances {
		if in := &s.Instances[i]; s.vacant(i+1, in) && (in.Called || !s.Spec.OnDemand) {
			s.spawn(i+1, in)
		}
	}
	s.steer()
	if !s.Spec.Exclusive {
		s.replace()
	}
	s.watch()
}

// relieve ends our patience where it is over, and lets older runs leave: a moment after
// their successor was ready, for many a broken version says that it is, and dies.
func (s *step) relieve(n int, in *Instance) {
	newest := 0 // the newest run that is ready
	for i := range in.Runs {
		s.patience(n, &in.Runs[i])
		if in.Runs[i].State == Ready {
			newest = i
		}
	}
	if s.relief(in) > s.now {
		return
	}
	for i := range in.Runs[:newest] {
		if old := &in.Runs[i]; old.live() {
			s.note(n, in.Runs[newest].Gen, "replaced generation "+strconv.FormatUint(old.Gen, 10))
			s.leave(n, old, true, "replaced")
		}
	}
}

// settleInstance forgets what is over.
func (s *step) settleInstance(n int, in *Instance) {
	if in.Until <= s.now {
		in.Until = 0
	}
	if !s.wished(n) {
		in.forget()
	}
	if !s.wished(n) || !s.Spec.OnDemand || in.attended() {
		in.Called = false
	}
	if in.Flushed && (in.FlushAt <= s.now || n <= s.Spec.Instances) {
		in.FlushAt, in.Flushed = 0, false
	}
	s.back(n, in)
}

// dismiss sends everybody away from an instance that is not wished. Where its queue can be
// kept from growing, but not moved, the oldest who serves stays until it is empty.
func (s *step) dismiss(n int, in *Instance) {
	if s.wished(n) {
		return
	}
	because := "stop"
	if s.Up {
		because = "fewer instances"
	}
	waits := in.ready() && s.Up && !s.Spec.CanFlush && !s.emptied(n, in)
	for i := range in.Runs {
		run := &in.Runs[i]
		if waits && run.State == Ready {
			waits = false
		} else if run.live() {
			s.leave(n, run, true, because)
		}
	}
	s.arm(&in.Watched, false, n)
}

// vacant reports whether nobody is there and nothing forbids a start. Who waits for a
// run that has just been lost is better off with a sibling than with its successor.
func (s *step) vacant(n int, in *Instance) bool {
	move := s.flushable(n) || s.lost == n && s.Spec.Steered && s.Spec.CanFlush && s.weight(n) > 0 && s.siblingServes(n)
	return s.wished(n) && !s.Paused && len(in.Runs) == 0 && !in.Ended && in.Until == 0 && !move
}

// patience ends where a deadline has passed.
func (s *step) patience(n int, run *Run) {
	passed := run.Deadline != 0 && run.Deadline <= s.now
	switch {
	case run.State == Starting && passed:
		run.Fault, run.Because = TimedOut, "start timeout "+s.Spec.StartTimeout.String()
		if run.Unready != "" {
			run.Because += ": " + run.Unready
		}
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

// watch asks for callers exactly where an instance waits for one.
func (s *step) watch() {
	somewhere := false
	for i := range s.Instances {
		in := &s.Instances[i]
		waits := s.waits(i+1, in)
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
