package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/sys"
)

// A canary is a few instances more than the unit has, of the new version, with a
// share of the queues. The old ones are untouched until it is promoted: then they
// are replaced, and the additional ones leave. Aborted, only those leave.

// A canary says which instances they are. It is saved with the unit.
type canary struct {
	Base  int    // instances of the unit itself; the canaries come after them
	Count int    // how many canaries
	Upto  uint64 // the newest generation of the old version

	Promoting bool   `json:",omitempty"` // the old version is being replaced; then it ends
	Undone    string `json:",omitempty"` // why that came to nothing the last time
	Ending    string `json:",omitempty"` // why it ends: its instances are leaving
}

// canaryCount reads how many instances a canary is to have: "2", or "25%" of those
// there are, and at least one.
func canaryCount(text string, instances int) (int, error) {
	number, percent := strings.CutSuffix(text, "%")
	most := instances
	if percent {
		most = 100
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > most {
		return 0, misuse(fmt.Sprintf("canary: %q is neither a number in 1..%d nor a share such as 25%%", text, instances))
	}
	if percent {
		n = (instances*n + 99) / 100
	}
	return n, nil
}

// canaryUnit starts a canary and waits until it serves.
func (s *Supervisor) canaryUnit(ctx context.Context, e errand, count string) (Outcome, error) {
	_, err := s.wish(ctx, e, func(u *unit) (machine.Event, error) {
		if err := u.canary.busy(); err != nil {
			return nil, err
		}
		if !u.machine.Up {
			return nil, errors.New("it is stopped; there is nothing to compare a canary with")
		}
		if u.machine.Paused {
			return nil, errors.New("it is paused, and nobody would be started; resume it first")
		}
		if len(u.machine.Instances) > u.instances() {
			return nil, errLeaving // a run of the old version may have its place yet
		}
		n, err := canaryCount(count, u.instances())
		if err != nil {
			return nil, err
		}
		c := canary{Base: u.instances(), Count: n, Upto: u.machine.LastGen}
		ev, err := s.scale(u, c.Base+n)
		if err != nil {
			return nil, err
		}
		u.canary = &c
		s.watchCanary(u)
		return ev, nil
	})
	if err != nil {
		return Outcome{}, err
	}
	return s.await(ctx, e, func(st UnitStatus) (string, string) {
		if st.Canary == 0 {
			return RolledBack, st.CanaryEnd
		}
		if st.trial.Ending != "" {
			return "", ""
		}
		if outcome, because := settled(st); outcome != Done {
			return outcome, because
		}
		return Done, fmt.Sprintf("%d of %d instances are of the new version; `sockd promote %s` or `sockd abort %s`", st.trial.Count, st.trial.Base+st.trial.Count, e.unit, e.unit)
	})
}

// promoteUnit replaces the old version; the loop lets the additional instances go when
// that is done, whoever still waits for it.
func (s *Supervisor) promoteUnit(ctx context.Context, e errand) (Outcome, error) {
	_, err := s.wish(ctx, e, func(u *unit) (machine.Event, error) {
		if u.canary == nil {
			return nil, u.noCanary()
		}
		if u.canary.Ending != "" {
			return nil, errCanaryEnds
		}
		if !u.machine.Up {
			return nil, errors.New("it is stopped; start it first, or abort the canary")
		}
		u.canary.Promoting, u.canary.Undone = true, ""
		return machine.Replace{Upto: u.canary.Upto}, nil
	})
	if err != nil {
		return Outcome{}, err
	}
	return s.await(ctx, e, func(st UnitStatus) (string, string) {
		switch {
		case st.Canary == 0 && st.CanaryEnd == promoted:
			return settled(st)
		case st.Canary == 0:
			return RolledBack, st.CanaryEnd
		case st.trial.Promoting || st.trial.Ending != "":
			return "", ""
		case st.trial.Undone == "" && st.CanaryEnd == promoted:
			return Done, "another canary has begun since"
		case st.trial.Undone == "":
			return RolledBack, st.CanaryEnd
		}
		return RolledBack, st.trial.Undone
	})
}

// promoted is how a canary ends well.
const promoted = "promoted"

// abortUnit lets the canary go; the old version has served all the time.
func (s *Supervisor) abortUnit(ctx context.Context, e errand) (Outcome, error) {
	_, err := s.wish(ctx, e, func(u *unit) (machine.Event, error) {
		if u.canary == nil {
			return nil, u.noCanary()
		}
		if u.canary.Ending != "" {
			return nil, nil
		}
		return s.endCanary(u, "aborted by the operator")
	})
	if err != nil {
		return Outcome{}, err
	}
	return s.await(ctx, e, func(st UnitStatus) (string, string) {
		switch {
		case st.Canary == 0:
			return Done, ""
		case st.trial.Ending == "":
			return Done, "another canary has begun since"
		case !st.Up:
			return Done, "it is stopped"
		}
		return "", ""
	})
}

var (
	errCanaryEnds = errors.New("a canary is ending; wait until its instances have gone")
	errLeaving    = errors.New("instances that are too many are leaving; wait until they have gone")
)

// noCanary says that there is none, and what has become of the last.
func (u *unit) noCanary() error {
	last := ""
	if u.canaryEnd != "" {
		last = " (how the last one ended: " + u.canaryEnd + ")"
	}
	return fmt.Errorf("no canary is under way%s; start one with restart --canary", last)
}

// busy says why nobody else may change how many instances there are.
func (c *canary) busy() error {
	switch {
	case c == nil:
		return nil
	case c.Ending != "":
		return errCanaryEnds
	}
	return errors.New("a canary is under way; promote or abort it first")
}

// endCanary begins to end a canary; the event it returns lets its instances go. The
// canary is saved until they have, so that another supervisor goes on with that.
func (s *Supervisor) endCanary(u *unit, because string) (machine.Event, error) {
	was := *u.canary
	u.canary.Promoting, u.canary.Ending = false, because
	ev, err := s.scale(u, u.canary.Base)
	if err != nil {
		*u.canary = was
		return nil, err
	}
	u.canaryEnd = because
	s.tell(Event{Unit: u.conf.Name, What: "canary ended", Because: because})
	return ev, nil
}

// settleCanary does what is due: a canary that was promoted ends, one whose instances
// have gone is forgotten.
func (s *Supervisor) settleCanary(u *unit) {
	c := u.canary
	switch {
	case c == nil:
	case c.Ending != "" && len(u.machine.Instances) <= c.Base:
		u.canary = nil
		s.saveCanary(u)
	case c.Promoting:
		switch outcome, because := replaced(c.Upto)(*s.statusOf(u)); outcome {
		case "":
		case Done:
			s.canaryEnds(u, promoted)
		default:
			c.Promoting, c.Undone = false, because
			s.saveCanary(u)
		}
	}
}

func (s *Supervisor) saveCanary(u *unit) {
	if err := s.save(u); err != nil {
		s.log.Error("not saved", "unit", u.conf.Name, "err", err)
	}
}

// goOnCanary takes a canary up that a supervisor before us has left.
func (s *Supervisor) goOnCanary(u *unit) {
	switch c := u.canary; {
	case c == nil:
	case c.Ending == "":
		s.watchCanary(u)
	case u.machine.Spec.Instances > c.Base:
		s.canaryEnds(u, c.Ending)
	}
}

// canaryEnds ends a canary by itself: it was promoted, a process of it has ended, or its
// queue grows.
func (s *Supervisor) canaryEnds(u *unit, because string) {
	ev, err := s.endCanary(u, because)
	if err != nil {
		s.log.Error("canary not ended", "unit", u.conf.Name, "err", err)
		return
	}
	s.follow = append(s.follow, news{u, ev})
}

// canaryExit looks at an exit nobody asked for.
func (s *Supervisor) canaryExit(u *unit, r *run, because string) {
	if c := u.canary; c == nil || c.Ending != "" || r.id.Instance <= c.Base {
		return
	}
	if !u.asked(r.id) {
		s.canaryEnds(u, fmt.Sprintf("%s@%d: %s", u.conf.Name, r.id.Instance, because))
	}
}

// canaryLook is how often the queue of a canary is looked at while there is one.
const canaryLook = 200 * time.Millisecond

// watchCanary looks whether the canary's queue grows, until there is none.
func (s *Supervisor) watchCanary(u *unit) {
	c := u.canary
	go func() {
		tick := time.NewTicker(canaryLook)
		defer tick.Stop()
		full := 0
		for {
			select {
			case <-tick.C:
			case <-s.quit:
				return
			}
			over := false
			err := s.ask(context.Background(), func() error {
				if over = u.canary != c || c.Ending != ""; !over && s.canaryQueued(u) {
					if full++; full == 2 {
						s.canaryEnds(u, "its queue grows")
						s.settleFollowing()
					}
				} else {
					full = 0
				}
				return nil
			})
			if over || err != nil {
				return
			}
		}
	}()
}

// canaryQueued: more than half of a canary's queue is full.
func (s *Supervisor) canaryQueued(u *unit) bool {
	for _, k := range u.sockets {
		if k.instance > u.canary.Base && k.listens() {
			if queued, backlog, _, err := sys.Queue(k.fd); err == nil && queued > backlog/2 {
				return true
			}
		}
	}
	return false
}
