package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

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

type verb func(s *Supervisor, ctx context.Context, e errand) (Outcome, error)

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

// wish gives a unit's machine an event, in the loop; an errand that was heard before
// brings about no more. It returns the errand as it was heard first.
func (s *Supervisor) wish(ctx context.Context, e errand, event func(*unit) (machine.Event, error)) (h heard, err error) {
	err = s.ask(ctx, func() error {
		u := s.units[e.unit]
		if u == nil || u.removed {
			return errNoUnit
		}
		if u.conf.Service == nil {
			return fmt.Errorf("unit %s only holds sockets; there is nothing to start or stop", e.unit)
		}
		if s.stopping {
			return errors.New("sockd is stopping")
		}
		var again bool
		if h, again, err = s.recallErrand(e); again || err != nil {
			return err
		}
		h = heard{ID: e.id, What: e.what, At: time.Now(), Upto: u.machine.LastGen}
		ev, err := event(u)
		if err != nil {
			return err
		}
		u.noteErrand(h)
		if ev == nil {
			s.commit(u, nil)
			return nil
		}
		switch ev.(type) {
		case machine.Start, machine.Replace:
			s.healPaths(u, true)
		}
		s.handle(u, ev)
		s.noteWish(u)
		s.settleFollowing()
		return nil
	})
	return h, err
}

// await looks at a unit whenever something changes until judge has made up its
// mind or the context ends.
func (s *Supervisor) await(ctx context.Context, e errand, judge func(UnitStatus) (outcome, because string)) (Outcome, error) {
	name := e.unit
	if !e.wait {
		return Outcome{name, Asked, ""}, nil
	}
	for {
		changed := s.changes.wait()
		st := s.shown(name)
		if st == nil {
			return Outcome{name, Failed, "the unit was removed meanwhile"}, nil
		}
		if outcome, because := judge(*st); outcome != "" {
			return Outcome{name, outcome, because}, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if st.Paused {
				return Outcome{name, TimedOut, "it is paused: nobody is started until `sockd resume " + name + "`, and then this goes on"}, nil
			}
			return Outcome{name, TimedOut, "it is " + st.State}, nil
		case <-s.quit:
			return Outcome{name, Failed, "sockd has ended"}, nil
		}
	}
}

func (s *Supervisor) startUnit(ctx context.Context, e errand) (Outcome, error) {
	_, err := s.wish(ctx, e, func(*unit) (machine.Event, error) { return machine.Start{}, nil })
	if err != nil {
		return Outcome{}, err
	}
	return s.await(ctx, e, func(st UnitStatus) (string, string) { return settled(st) })
}

// settled: every instance is where it should be, or one of them has failed.
func settled(st UnitStatus) (outcome, because string) {
	outcome = Done
	for _, in := range st.Instances {
		if st.Up && in.Instance > st.wanted && len(in.Runs) == 0 {
			continue // one too many, whose queue is about to move
		}
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

func (s *Supervisor) stopUnit(ctx context.Context, e errand) (Outcome, error) {
	asked, err := s.wish(ctx, e, func(*unit) (machine.Event, error) { return machine.Stop{}, nil })
	if err != nil {
		return Outcome{}, err
	}
	return s.await(ctx, e, func(st UnitStatus) (string, string) {
		for _, in := range st.Instances {
			for _, r := range in.Runs {
				if !st.Up || r.Gen <= asked.Upto {
					return "", ""
				}
			}
		}
		if st.Up {
			return Failed, "it was started meanwhile"
		}
		return Done, force(st, asked)
	})
}

// force says what it took to end runs that did not leave by themselves; "" if nothing.
func force(st UnitStatus, asked heard) string {
	var texts []string
	for _, in := range st.Instances {
		exit := in.LastExit
		if exit == nil || exit.Gen > asked.Upto || exit.Time.Before(asked.At) {
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

func (s *Supervisor) restartUnit(ctx context.Context, e errand) (Outcome, error) {
	h, err := s.wish(ctx, e, func(u *unit) (machine.Event, error) {
		if !u.machine.Up {
			return machine.Start{}, nil
		}
		return machine.Replace{Upto: u.machine.LastGen}, nil
	})
	if err != nil {
		return Outcome{}, err
	}
	return s.await(ctx, e, replaced(h.Upto))
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
				because := in.Runs[0].Kept
				if because == "" { // the reason is as old as a supervisor before us
					because = in.Because
				}
				return RolledBack, fmt.Sprintf("%s@%d: %s", st.Name, in.Instance, because)
			}
		}
		return settled(st)
	}
}

// reloadUnit sends a unit's reload signal to its ready runs.
func (s *Supervisor) reloadUnit(ctx context.Context, e errand) (Outcome, error) {
	said := "signal sent"
	_, err := s.wish(ctx, e, func(u *unit) (machine.Event, error) {
		sent := 0
		sig := u.conf.Service.ReloadSignal
		if sig == 0 {
			return nil, fmt.Errorf("unit %s has no reload_signal; add one, or use restart", e.unit)
		}
		for _, in := range u.machine.Instances {
			for _, m := range in.Runs {
				if r := u.runs[m.Gen]; r != nil && m.State == machine.Ready {
					s.signal(u, r.id, sig)
					sent++
				}
			}
		}
		said = fmt.Sprintf("signal sent to %d processes", sent)
		if sent == 1 {
			said = "signal sent to 1 process"
		}
		return nil, nil
	})
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{e.unit, Done, said}, nil
}
