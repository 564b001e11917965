package machine

import (
	"errors"
	"fmt"
)

// Check returns the first invariant that does not hold, with the instance that
// breaks it. It may be called whenever no Step or Recover is under way. Invariants
// that need a clock or a history live with the simulated world in the tests.
func (u *Unit) Check() error {
	if len(u.Instances) < u.Spec.Instances {
		return errors.New("an instance is missing")
	}
	if n := len(u.Instances); n > u.Spec.Instances && len(u.Instances[n-1].Runs) == 0 && (u.Instances[n-1].FlushAt == 0 || !u.Spec.CanFlush) {
		return errors.New("a surplus instance stays although nobody is there")
	}
	waits := false
	for i := range u.Instances {
		in := &u.Instances[i]
		if text := u.checkPlace(i+1, in); text != "" {
			return fmt.Errorf("instance %d: %s", i+1, text)
		}
		if text := u.checkRuns(i, in); text != "" {
			return fmt.Errorf("instance %d: %s", i+1, text)
		}
		if text := u.checkQueue(i+1, in); text != "" {
			return fmt.Errorf("instance %d: %s", i+1, text)
		}
		waits = waits || u.waits(i+1, in)
	}
	if u.Watched != (waits && u.Spec.Shared) {
		return errors.New("watched on shared sockets exactly if an instance waits for a caller, broken")
	}
	return u.checkWeights()
}

// checkPlace checks what is known about the place, given who is there.
func (u *Unit) checkPlace(n int, in *Instance) string {
	wished, live := u.wished(n), in.attended()
	held := u.Paused || u.flushable(n)
	switch {
	case len(in.Runs) > 2:
		return "more than two runs"
	case !wished && live && in.EmptyBy == 0:
		return "not wished, and a run has not been told to leave"
	case !wished && (in.Until != 0 || in.Called || in.Fails != 0 || in.Ended):
		return "not wished, and not forgotten"
	case in.Ended && (live || u.Spec.OnDemand || in.Until != 0):
		return "ended for good, and yet going on"
	case in.Failed && !in.Ended:
		return "failed without having ended"
	case in.Called && (live || !u.Spec.OnDemand):
		return "called, although somebody answers or nobody needs to call"
	case in.Called && len(in.Runs) == 0 && in.Until == 0 && !held:
		return "called, and nobody was started"
	case wished && !u.Spec.OnDemand && len(in.Runs) == 0 && !in.Ended && in.Until == 0 && !held:
		return "wished at boot, and nobody was started"
	case in.Watched != (u.waits(n, in) && u.Spec.PerInstance):
		return "watched exactly if it waits for a caller, broken"
	case in.Fails < 0:
		return "fewer than no failures"
	}
	return ""
}

// checkQueue checks what is known about the queue of the place.
func (u *Unit) checkQueue(n int, in *Instance) string {
	surplus := n > u.Spec.Instances
	stale := len(in.Runs) == 1 && in.Runs[0].Stale
	switch {
	case in.FlushAt != 0 && (!u.Spec.Steered || u.weight(n) != 0):
		return "to be flushed, and not steered away"
	case in.Flushed && (!surplus || in.FlushAt == 0 || len(in.Runs) > 0):
		return "flushed for nothing"
	case in.Away && !u.wished(n):
		return "not wished, and replaced"
	case in.Away && (in.Ended || u.waits(n, in)):
		return "away, and nobody comes"
	case in.Away && in.ready() && (!stale || in.EmptyBy == 0 || u.Paused):
		return "away, and serving"
	case in.EmptyBy != 0 && (!in.ready() || !u.Spec.Steered || !u.siblingServes(n)):
		return "a queue becomes empty that cannot"
	case in.EmptyBy != 0 && !in.Away && !(surplus && u.Up && !u.Spec.CanFlush):
		return "a queue becomes empty for nothing"
	}
	return ""
}

// checkWeights: everybody gets what he should, and somebody gets something.
func (u *Unit) checkWeights() error {
	if u.Weights == nil && !(u.Spec.Steered && u.Up) {
		return nil
	}
	if !u.Spec.Steered || len(u.Weights) != len(u.Instances) {
		return fmt.Errorf("weights %v for %d instances", u.Weights, len(u.Instances))
	}
	even := u.evenly()
	some := false
	for i, w := range u.Weights {
		some = some || w > 0
		if w != u.share(i+1, even) {
			return fmt.Errorf("instance %d: weight %d, wanted %d", i+1, w, u.share(i+1, even))
		}
	}
	if !some {
		return errors.New("nobody gets connections")
	}
	return nil
}

// checkRuns checks each run by itself and against the older ones.
func (u *Unit) checkRuns(i int, in *Instance) string {
	for j := range in.Runs {
		run := &in.Runs[j]
		switch {
		case run.Gen == 0 || run.Gen > u.LastGen:
			return "a generation that was never given"
		case j > 0 && run.Gen <= in.Runs[j-1].Gen:
			return "runs not in order of generation"
		case run.live() && run.told():
			return "told to leave, and not leaving"
		case !run.live() && run.Stale:
			return "leaving, and yet to be replaced"
		case run.live() && run.Forgiven:
			return "forgiven for nothing"
		case run.Asked && run.Fault != "":
			return "asked to leave, and blamed for it"
		case run.State == Starting && run.ReadyAt != 0:
			return "starting, and ready before"
		case run.State == Ready && run.ReadyAt == 0:
			return "ready at no time"
		case run.State == Ready && run.Watchdog > 0 && run.Deadline == 0:
			return "a watchdog without a deadline"
		case run.State == Ready && run.Watchdog == 0 && run.Deadline != 0:
			return "a deadline without a watchdog"
		case run.State == Killing && run.Deadline != 0:
			return "killing has a deadline"
		case run.State == Killing && !run.told():
			return "killed for no reason"
		case run.State == Ready && j > 0 && in.Runs[j-1].live() && (u.Spec.Overlap <= 0 || u.relief(in) == 0):
			return "ready, and the older run not relieved"
		case run.State != Starting && run.State != Ready && run.State != Draining && run.State != Killing:
			return fmt.Sprintf("unknown state %q", run.State)
		}
		for k := range u.Instances[:i] {
			if u.run(k+1, run.Gen) != nil {
				return "a generation used twice"
			}
		}
	}
	return ""
}
