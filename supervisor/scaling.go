package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
)

// maxInstances is what a unit file may ask for too.
const maxInstances = 1024

// scaleUnit changes how many instances a unit has, until its file changes. Sockets
// of new instances are bound first; those of instances that are too many are closed
// when their processes have left and their queues have been moved.
func (s *Supervisor) scaleUnit(ctx context.Context, e errand, instances int) (Outcome, error) {
	if instances < 1 || instances > maxInstances {
		return Outcome{}, misuse(fmt.Sprintf("instances: %d is not in 1..%d", instances, maxInstances))
	}
	closed := 0
	if e.wait {
		s.letBack(ctx, e.unit, instances)
		if st := s.shown(e.unit); st != nil {
			closed = st.closed
		}
	}
	_, err := s.wish(ctx, e, func(u *unit) (machine.Event, error) {
		if err := u.canary.busy(); err != nil {
			return nil, err
		}
		return s.scale(u, instances)
	})
	if err != nil {
		return Outcome{}, err
	}
	out, err := s.await(ctx, e, scaledTo(instances))
	s.sayClosed(&out, closed)
	return out, err
}

// scaledTo judges whether a unit has come to so many instances. A canary that has begun
// since adds its own to them, and nobody waits for those.
func scaledTo(instances int) func(UnitStatus) (outcome, because string) {
	return func(st UnitStatus) (string, string) {
		switch {
		case st.wanted != instances:
			return Failed, fmt.Sprintf("another number was asked for meanwhile: %d", st.wanted)
		case !st.Up: // those that are too many go when somebody is there to whom their queues can move
			return Done, "it is stopped"
		case len(st.Instances) < instances || len(st.Instances) > instances && st.Canary == 0:
			return "", ""
		}
		st.Instances = st.Instances[:instances]
		return settled(st)
	}
}

// scale prepares the sockets for so many instances; the event makes it so.
func (s *Supervisor) scale(u *unit, instances int) (machine.Event, error) {
	if err := u.fitsSeats(instances); err != nil {
		return nil, err
	}
	b, err := s.bind(u, u.conf, instances, nil)
	if err != nil {
		return nil, err
	}
	gone, err := s.commitBinding(b)
	if err == nil {
		err = s.settleBindings(b)
	}
	if err != nil {
		return nil, err
	}
	s.steerUnit(u, keeper.Inventory{})
	s.release(gone)
	spec, want := s.spec(u), u.machine.Spec
	spec.Instances, want.Instances = instances, instances
	if spec != want { // one became several, or the other way round: there is a group to steer now, or none
		return machine.Respec{Spec: spec, Scaled: true}, nil
	}
	return machine.Scale{Instances: instances}, nil
}

// pauseUnit holds callers in the queues: nobody is started until resume. Processes
// that live go on.
func (s *Supervisor) pauseUnit(ctx context.Context, e errand) (Outcome, error) {
	_, err := s.wish(ctx, e, func(u *unit) (machine.Event, error) {
		if !u.machine.Up {
			return nil, errors.New("it is stopped; there is nothing to pause")
		}
		return machine.Pause{}, nil
	})
	if err != nil {
		return Outcome{}, err
	}
	grows := ""
	if e.wait {
		grows = "; " + s.outlook(ctx, e.unit)
	}
	st, _ := s.Unit(e.unit)
	return Outcome{e.unit, Done, room(st) + grows}, nil
}

// room says how much the queues can still hold: of connections their number, of
// datagrams bytes, as the kernel counts them.
func room(st UnitStatus) string {
	var queued, backlog [2]int
	for _, k := range st.Sockets {
		if k.Backlog > 0 {
			queued[k.unit()] += k.Queued
			backlog[k.unit()] += k.Backlog
		}
	}
	var all []string
	for i, what := range []string{"connections wait", "bytes of datagrams wait"} {
		if backlog[i] > 0 || i == 0 && backlog[1] == 0 {
			all = append(all, fmt.Sprintf("%d %s, %d more fit", queued[i], what, max(0, backlog[i]-queued[i])))
		}
	}
	return strings.Join(all, "; ")
}

// What a queue is counted in.
const (
	inConnections = iota
	inBytes
)

// unit is what the socket's queue is counted in.
func (k *SocketStatus) unit() int {
	if strings.HasPrefix(k.Network, "udp") {
		return inBytes
	}
	return inConnections
}

func (s *Supervisor) resumeUnit(ctx context.Context, e errand) (Outcome, error) {
	_, err := s.wish(ctx, e, func(*unit) (machine.Event, error) { return machine.Resume{}, nil })
	if err != nil {
		return Outcome{}, err
	}
	return s.await(ctx, e, func(st UnitStatus) (string, string) {
		if !st.Up {
			return Done, "it is stopped"
		}
		return settled(st)
	})
}
