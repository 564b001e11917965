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
}

// canaryCount reads how many instances a canary is to have: "2", or "25%" of those
// there are, and at least one.
func canaryCount(text string, instances int) (int, error) {
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(number)
	if err == nil && percent {
		n = (instances*n + 99) / 100
	}
	if err != nil || n < 1 || n > instances || percent && n > 100*instances {
		return 0, fmt.Errorf("canary: %q is neither a number in 1..%d nor a share such as 25%%", text, instances)
	}
	return n, nil
}

// canaryUnit starts a canary and waits until it serves.
func (s *Supervisor) canaryUnit(ctx context.Context, name, count string, wait bool) (Outcome, error) {
	var c canary
	err := s.wish(ctx, name, func(u *unit) (machine.Event, error) {
		if u.canary != nil {
			return nil, errors.New("a canary is under way; promote or abort it first")
		}
		if !u.machine.Up {
			return nil, errors.New("it is stopped; there is nothing to compare a canary with")
		}
		n, err := canaryCount(count, u.instances())
		if err != nil {
			return nil, err
		}
		c = canary{Base: u.instances(), Count: n, Upto: u.machine.LastGen}
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
	return s.await(ctx, name, wait, func(st UnitStatus) (string, string) {
		if st.Canary == 0 {
			return RolledBack, st.CanaryEnd
		}
		if outcome, because := settled(st); outcome != Done {
			return outcome, because
		}
		return Done, fmt.Sprintf("%d of %d instances are of the new version; `sockd promote %s` or `sockd abort %s`", c.Count, c.Base+c.Count, name, name)
	})
}

// promoteUnit replaces the old version, and lets the additional instances go.
func (s *Supervisor) promoteUnit(ctx context.Context, name string, wait bool) (Outcome, error) {
	var c canary
	err := s.wish(ctx, name, func(u *unit) (machine.Event, error) {
		if u.canary == nil {
			return nil, errNoCanary
		}
		c = *u.canary
		return machine.Replace{Upto: c.Upto}, nil
	})
	if err != nil {
		return Outcome{}, err
	}
	out, err := s.await(ctx, name, true, replaced(c.Upto))
	if err != nil || out.Outcome != Done {
		return out, err
	}
	return s.endCanary(ctx, name, "promoted")
}

// abortUnit lets the canary go; the old version has served all the time.
func (s *Supervisor) abortUnit(ctx context.Context, name string, wait bool) (Outcome, error) {
	return s.endCanary(ctx, name, "aborted by the operator")
}

var errNoCanary = errors.New("no canary is under way; start one with restart --canary")

func (s *Supervisor) endCanary(ctx context.Context, name, because string) (Outcome, error) {
	base := 0
	err := s.wish(ctx, name, func(u *unit) (machine.Event, error) {
		if u.canary == nil {
			return nil, errNoCanary
		}
		base = u.canary.Base
		return s.dropCanary(u, because)
	})
	if err != nil {
		return Outcome{}, err
	}
	return s.await(ctx, name, true, func(st UnitStatus) (string, string) {
		if len(st.Instances) > base {
			return "", ""
		}
		return settled(st)
	})
}

// dropCanary forgets a canary; the event it returns lets its instances go.
func (s *Supervisor) dropCanary(u *unit, because string) (machine.Event, error) {
	base := u.canary.Base
	s.tell(Event{Unit: u.conf.Name, What: "canary ended", Because: because})
	u.canary, u.canaryEnd = nil, because
	return s.scale(u, base)
}

// canaryFailed ends a canary by itself: a process of it has ended, or its queue grows.
func (s *Supervisor) canaryFailed(u *unit, because string) {
	ev, err := s.dropCanary(u, because)
	if err != nil {
		s.log.Error("canary not ended", "unit", u.conf.Name, "err", err)
		return
	}
	s.follow = append(s.follow, news{u, ev})
}

// canaryExit looks at an exit nobody asked for.
func (s *Supervisor) canaryExit(u *unit, r *run, because string) {
	if m := u.machineRun(r.id); u.canary != nil && r.id.Instance > u.canary.Base && (m == nil || !m.Asked) {
		s.canaryFailed(u, fmt.Sprintf("%s@%d: %s", u.conf.Name, r.id.Instance, because))
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
				if over = u.canary != c; !over && s.canaryQueued(u) {
					if full++; full == 2 {
						s.canaryFailed(u, "its queue grows")
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
