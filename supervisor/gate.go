package supervisor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

// Readiness gates. A run whose unit has one is not asked to say READY=1: it is asked
// whether it serves, again and again, from exec on until it does or its start timeout
// ends it. Nobody is asked any more after that.
//
// The question must reach this very process and not a sibling, nor the one that it
// is to replace, although all of them accept on the same sockets. So each run is
// given a listening socket that no other has: its door.

// doorAddress begins the names of these sockets. They are abstract, so that no folder
// is needed, and random: nobody comes upon one by accident.
const doorAddress = "@sockd/ready/"

// doorBacklog leaves room for tries that were given up before they were accepted.
const doorBacklog = 64

// openDoor makes the run's private socket, if its gate asks on one.
func (s *Supervisor) openDoor(r *run) error {
	if sv := r.unit.conf.Service; !sv.Gate.Private() {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	var secret [16]byte
	rand.Read(secret[:]) // never fails (crypto/rand)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: doorAddress + hex.EncodeToString(secret[:])})
	if err == nil {
		err = unix.Listen(fd, doorBacklog)
	}
	if err == nil {
		err = s.keeper.Hold(r.held("gate"), fd)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	r.door = fd
	return nil
}

// closeDoor parts from all that a gate needs, when the run has ended.
func (s *Supervisor) closeDoor(r *run) {
	s.closeGate(r)
	if r.door != 0 {
		s.keeper.Release(r.held("gate"))
		r.door = 0
	}
}

// A gate asks one run.
type gate struct {
	run     *run
	conf    *units.Gate
	files   []string // the environment_files for its command
	address string   // of the door
	door    int      // a duplicate of it, for the goroutine that asks; -1 if there is none
	asked   bool     // a connection of ours is in the door's queue, or has been accepted
	closed  context.CancelFunc
}

// A gateNews is what came of one try: no error means that the run is ready.
type gateNews struct {
	gate *gate
	err  error
}

// gated reports whether a gate decides when the run is ready. One that was started
// before the unit's gate had a door says so itself.
func (u *unit) gated(r *run) bool {
	sv := u.conf.Service
	return sv != nil && sv.Gate != nil && (r.door != 0 || !sv.Gate.Private())
}

// settleGates asks the runs that are starting, and nobody else. It looks at how
// things are, not at what has happened, so it may be called at any time.
func (s *Supervisor) settleGates(u *unit) {
	for _, r := range u.runs {
		if r.gate == nil && !u.gated(r) {
			continue
		}
		m := u.machineRun(r.id)
		executed := r.notified != 0 // see runNews and adopt
		wanted := u.gated(r) && executed && !r.exited && m != nil && m.State == machine.Starting
		if r.gate != nil && !(wanted && r.gate.conf == u.conf.Service.Gate) { // a reload may have changed the question
			s.closeGate(r)
		}
		if wanted && r.gate == nil {
			if err := s.openGate(u, r); err != nil {
				s.log.Error("not asked whether it is ready", "unit", u.conf.Name, "instance", r.id.Instance, "generation", r.id.Gen, "err", err)
			}
		}
	}
}

// openGate begins to ask.
func (s *Supervisor) openGate(u *unit, r *run) error {
	g := &gate{run: r, conf: u.conf.Service.Gate, files: u.conf.Service.EnvironmentFiles, door: -1}
	if g.conf.Private() {
		sa, err := unix.Getsockname(r.door)
		if err != nil {
			return err
		}
		name, ok := sa.(*unix.SockaddrUnix)
		if !ok {
			return errors.New("its socket is of another kind")
		}
		g.address = name.Name
		if g.door, err = unix.FcntlInt(uintptr(r.door), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			return err
		}
	}
	var ctx context.Context
	ctx, g.closed = context.WithCancel(context.Background())
	r.gate = g
	go s.keepAsking(ctx, g)
	return nil
}

// closeGate ends the asking.
func (s *Supervisor) closeGate(r *run) {
	if r.gate == nil {
		return
	}
	r.gate.closed()
	r.gate = nil
	s.killCheck(checkID(r.id))
}

// keepAsking tries until the answer is yes. It ends when the gate is closed or the
// supervisor ends.
func (s *Supervisor) keepAsking(ctx context.Context, g *gate) {
	if g.door >= 0 {
		defer unix.Close(g.door)
	}
	for {
		err := s.try(ctx, g)
		select {
		case s.gates <- gateNews{g, err}:
		case <-ctx.Done():
			return
		case <-s.quit:
			return
		}
		if err == nil {
			return
		}
		select {
		case <-time.After(g.conf.Interval):
		case <-ctx.Done():
			return
		case <-s.quit:
			return
		}
	}
}

// try asks once.
func (s *Supervisor) try(ctx context.Context, g *gate) error {
	if g.conf.Command != nil {
		return s.tryCommand(ctx, g)
	}
	ctx, cancel := context.WithTimeout(ctx, g.conf.Timeout)
	defer cancel()
	if g.conf.TCP {
		return tryAccept(ctx, g)
	}
	return tryHTTP(ctx, g)
}

// gatesSaid takes what came of tries.
func (s *Supervisor) gatesSaid(all []gateNews) {
	var ds []*decision
	for _, n := range all {
		if d := s.gateSaid(n); d != nil {
			ds = append(ds, d)
		}
	}
	s.settle(ds)
}

func (s *Supervisor) gateSaid(n gateNews) *decision {
	r := n.gate.run
	if r.gate != n.gate {
		return nil // closed meanwhile
	}
	ev := machine.Notified{Instance: r.id.Instance, Gen: r.id.Gen, Ready: n.err == nil}
	if n.err != nil {
		ev.Unready = "ready: " + n.err.Error()
		if m := r.unit.machineRun(r.id); m != nil && m.Unready == ev.Unready {
			return nil // as before
		}
	}
	return s.decide(r.unit, len(s.untold), ev)
}
