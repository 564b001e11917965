package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sockd/sockd/supervisor/internal/machine"
)

// What became of a verb.
const (
	Done       = "done"
	Failed     = "failed"
	RolledBack = "rolled back" // restart: the new run did not become ready; the old one serves
	TimedOut   = "timed out"   // nothing has failed yet, but it is not finished either
	Asked      = "asked"       // wait=false
)

// An Outcome is what POST /v1/units/NAME/VERB answers.
type Outcome struct {
	Unit    string `json:"unit,omitempty"`
	Outcome string `json:"outcome"`
	Because string `json:"because,omitempty"`
}

var errNoUnit = errors.New("no such unit")

type verb func(s *Supervisor, ctx context.Context, name string, wait bool) (Outcome, error)

var verbs = map[string]verb{
	"start":   (*Supervisor).startUnit,
	"stop":    (*Supervisor).stopUnit,
	"restart": (*Supervisor).restartUnit,
	"reload":  (*Supervisor).reloadUnit,
	"pause":   (*Supervisor).pauseUnit,
	"resume":  (*Supervisor).resumeUnit,
	"promote": (*Supervisor).promoteUnit,
	"abort":   (*Supervisor).abortUnit,
}

// wish gives a unit's machine an event, in the loop.
func (s *Supervisor) wish(ctx context.Context, name string, event func(*unit) (machine.Event, error)) error {
	return s.ask(ctx, func() error {
		u := s.units[name]
		if u == nil || u.removed {
			return errNoUnit
		}
		if u.conf.Service == nil {
			return fmt.Errorf("unit %s only holds sockets; there is nothing to start or stop", name)
		}
		if s.stopping {
			return errors.New("sockd is stopping")
		}
		ev, err := event(u)
		if err != nil || ev == nil {
			return err
		}
		s.handle(u, ev)
		s.noteWish(u)
		s.settleFollowing()
		return nil
	})
}

// await looks at a unit whenever something changes until judge has made up its
// mind or the context ends.
func (s *Supervisor) await(ctx context.Context, name string, wait bool, judge func(UnitStatus) (outcome, because string)) (Outcome, error) {
	if !wait {
		return Outcome{name, Asked, ""}, nil
	}
	for {
		changed := s.changes.wait()
		st, ok := s.Unit(name)
		if !ok {
			return Outcome{name, Failed, "the unit was removed meanwhile"}, nil
		}
		if outcome, because := judge(st); outcome != "" {
			return Outcome{name, outcome, because}, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Outcome{name, TimedOut, "it is " + st.State}, nil
		case <-s.quit:
			return Outcome{name, Failed, "sockd has ended"}, nil
		}
	}
}

func (s *Supervisor) startUnit(ctx context.Context, name string, wait bool) (Outcome, error) {
	err := s.wish(ctx, name, func(*unit) (machine.Event, error) { return machine.Start{}, nil })
	if err != nil {
		return Outcome{}, err
	}
	return s.await(ctx, name, wait, func(st UnitStatus) (string, string) { return settled(st) })
}

// settled: every instance is where it should be, or one of them has failed.
func settled(st UnitStatus) (outcome, because string) {
	outcome = Done
	for _, in := range st.Instances {
		switch machine.Condition(in.State) {
		case machine.IsReady, machine.Idle, machine.EndedWell, machine.IsPaused:
		case machine.Backoff, machine.EndedFailed:
			return Failed, fmt.Sprintf("%s@%d: %s", st.Name, in.Instance, in.Because)
		case machine.Stopped:
			return Failed, "it was stopped meanwhile"
		default:
			outcome = ""
		}
	}
	return outcome, ""
}

func (s *Supervisor) stopUnit(ctx context.Context, name string, wait bool) (Outcome, error) {
	asked := map[uint64]bool{} // generations
	err := s.wish(ctx, name, func(u *unit) (machine.Event, error) {
		for _, in := range u.machine.Instances {
			for _, r := range in.Runs {
				asked[r.Gen] = true
			}
		}
		return machine.Stop{}, nil
	})
	if err != nil {
		return Outcome{}, err
	}
	return s.await(ctx, name, wait, func(st UnitStatus) (string, string) {
		for _, in := range st.Instances {
			if len(in.Runs) > 0 {
				return "", ""
			}
		}
		if st.Up {
			return Failed, "it was started meanwhile"
		}
		return Done, force(st, asked)
	})
}

// force says what it took to end runs that did not leave by themselves; "" if nothing.
func force(st UnitStatus, asked map[uint64]bool) string {
	var texts []string
	for _, in := range st.Instances {
		exit := in.LastExit
		if exit == nil || !asked[exit.Gen] {
			continue
		}
		if exit.Signal == "SIGKILL" {
			texts = append(texts, fmt.Sprintf("%s@%d had to be killed", st.Name, in.Instance))
		}
		if exit.Killed > 0 {
			texts = append(texts, fmt.Sprintf("%s@%d left other processes, %d killed", st.Name, in.Instance, exit.Killed))
		}
	}
	return strings.Join(texts, "; ")
}

func (s *Supervisor) restartUnit(ctx context.Context, name string, wait bool) (Outcome, error) {
	var upto uint64
	err := s.wish(ctx, name, func(u *unit) (machine.Event, error) {
		upto = u.machine.LastGen
		if !u.machine.Up {
			return machine.Start{}, nil
		}
		return machine.Replace{Upto: upto}, nil
	})
	if err != nil {
		return Outcome{}, err
	}
	return s.await(ctx, name, wait, replaced(upto))
}

// replaced judges a replacement of the generations up to upto.
func replaced(upto uint64) func(UnitStatus) (outcome, because string) {
	return func(st UnitStatus) (string, string) {
		for _, in := range st.Instances {
			newer, older := false, false
			for _, r := range in.Runs {
				if r.Gen > upto {
					newer = true
				} else if r.Stale || r.State != "ready" {
					return "", "" // it waits for its successor, or leaves
				} else {
					older = true
				}
			}
			if older && newer {
				return "", ""
			}
			if older {
				return RolledBack, fmt.Sprintf("%s@%d: %s", st.Name, in.Instance, in.Because)
			}
		}
		return settled(st)
	}
}

// reloadUnit sends a unit's reload signal to its ready runs.
func (s *Supervisor) reloadUnit(ctx context.Context, name string, wait bool) (Outcome, error) {
	sent := 0
	err := s.wish(ctx, name, func(u *unit) (machine.Event, error) {
		sig := u.conf.Service.ReloadSignal
		if sig == 0 {
			return nil, fmt.Errorf("unit %s has no reload_signal; add one, or use restart", name)
		}
		for _, in := range u.machine.Instances {
			for _, m := range in.Runs {
				if r := u.runs[m.Gen]; r != nil && m.State == machine.Ready {
					s.signal(u, r.id, sig)
					sent++
				}
			}
		}
		return nil, nil
	})
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{name, Done, fmt.Sprintf("signal sent to %d processes", sent)}, nil
}
