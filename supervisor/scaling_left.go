package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/steer"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"golang.org/x/sys/unix"
)

// What waits in a udp socket that is closed for good, while its siblings stay, is sent to
// them. Where they have no room for all of it, or a process may read it yet, the socket is
// held until then, by whichever supervisor there is: left/web/2.17/127.0.0.1:53/4711, of
// instance 2, whose processes up to generation 17 may have it.
const leftHeld = "left/"

// A left is such a socket.
type left struct {
	held, unit string
	instance   int
	upto       uint64
	real       string
	fd         int
}

func parseLeft(held string, fd int) (l left, ok bool) {
	rest, ok := strings.CutPrefix(held, leftHeld)
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 4 {
		return l, false
	}
	instance, upto, _ := strings.Cut(parts[1], ".")
	l = left{held: held, unit: parts[0], real: parts[2], fd: fd}
	l.instance, _ = strconv.Atoi(instance)
	l.upto, _ = strconv.ParseUint(upto, 10, 64)
	return l, true
}

// leftTurn bounds how long what is left is brought on at a time: others wait meanwhile.
const leftTurn = 20 * time.Millisecond

// bringAway has it done with a udp socket that is about to be closed.
func (s *Supervisor) bringAway(u *unit, k *socket) {
	if !strings.HasPrefix(k.addr.Network, "udp") || k.fd < 0 {
		return
	}
	to := s.takers(k.real, k)
	if len(to) == 0 {
		return
	}
	l := left{unit: u.conf.Name, instance: k.instance, upto: u.machine.LastGen, real: k.real, fd: k.fd}
	s.quitGroup(l, to)
	if queued, _, _, err := sys.Queue(k.fd); err == nil && queued == 0 && !s.mayRead(l) {
		return
	}
	l.held = fmt.Sprintf("%s%s/%d.%d/%s/%d", leftHeld, l.unit, l.instance, l.upto, l.real, k.inode)
	dup, err := unix.FcntlInt(uintptr(k.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		if err = s.keeper.Hold(l.held, dup); err != nil {
			unix.Close(dup)
		}
	}
	if err != nil {
		s.log.Warn("datagrams closed", "unit", u.conf.Name, "instance", k.instance, "socket", k.name, "because", err)
		return
	}
	l.fd = dup
	s.bringLeft(l)
}

// quitGroup sees that the socket is dealt nothing any more. Where its siblings are routed it is
// not in their map; to connect it there would have the kernel choose among all of them for
// ever (reuseport_has_conns), and now and then another than the map says.
func (s *Supervisor) quitGroup(l left, to []taker) {
	if slices.ContainsFunc(to, func(t taker) bool { return t.routed }) {
		return
	}
	if err := steer.Quit(l.fd); err != nil {
		s.log.Warn("queue goes on growing", "unit", l.unit, "instance", l.instance, "address", l.real, "err", err)
	}
}

// bringLeft sends on what waits in a socket that is held for it, as room comes. The last that
// has come has it tried again for all.
func (s *Supervisor) bringLeft(l left) {
	s.left = append(s.left, l)
	s.lefts++
	last := s.lefts
	s.bringLeftsSoon()
	s.tryAgain(func() bool {
		if last == s.lefts {
			s.bringLefts()
		}
		return last != s.lefts || len(s.left) == 0
	})
}

// bringLefts does what can be done now about all of them, for as long as others can wait.
// Those that are not tried then are the first of the next time, which comes soon if some
// could be brought.
func (s *Supervisor) bringLefts() {
	begun, brought := time.Now(), false
	full := map[string]bool{} // addresses
	for range s.left {
		if time.Since(begun) > leftTurn {
			if brought {
				s.bringLeftsSoon()
			}
			return
		}
		l := s.left[0]
		s.left = s.left[1:]
		switch {
		case full[l.real] || s.mayRead(l):
		case s.bringOn(l):
			s.keeper.Release(l.held)
			brought = true
			continue
		default:
			full[l.real] = true
		}
		s.left = append(s.left, l)
	}
}

// bringLeftsSoon does it when who had chosen a socket before has come to it, once for all
// who ask for it meanwhile.
func (s *Supervisor) bringLeftsSoon() {
	if len(s.left) == 0 {
		return
	}
	s.leftsSoon++
	go func() {
		select {
		case <-time.After(steer.Settle):
		case <-s.quit:
			return
		}
		s.ask(context.Background(), func() error {
			if s.leftsSoon--; s.leftsSoon == 0 {
				s.bringLefts()
			}
			return nil
		})
	}()
}

// closeLefts says what is closed with those that there are.
func (s *Supervisor) closeLefts() {
	for _, l := range s.left {
		if queued, _, _, err := sys.Queue(l.fd); err == nil && queued > 0 {
			s.log.Warn("datagrams closed", "unit", l.unit, "instance", l.instance, "socket", l.real, "bytes", queued)
		}
		s.keeper.Release(l.held)
	}
	s.left = nil
}

// mayRead says whether a process may read the socket yet.
func (s *Supervisor) mayRead(l left) bool {
	u := s.units[l.unit]
	if u == nil {
		return false
	}
	for gen, r := range u.runs {
		if (l.instance == 0 || l.instance == r.id.Instance) && gen <= l.upto && !r.exited {
			return true
		}
	}
	return false
}

// bringOn sends on what waits, and says whether nothing is left of which that can be hoped.
func (s *Supervisor) bringOn(l left) (done bool) {
	if queued, _, _, err := sys.Queue(l.fd); err != nil || queued == 0 {
		return true
	}
	err := errors.New("nobody has their address any more")
	to := s.takers(l.real, nil)
	s.quitGroup(l, to) // its siblings may have been routed when it was closed, and not be any more
	var fds []int
	for _, t := range to {
		fds = append(fds, t.fd)
	}
	dropped := 0
	for begun := time.Now(); len(fds) > 0 && time.Since(begun) < leftTurn; dropped++ {
		if err = s.redeliver(l.unit, l.real, l.instance, l.fd, fds...); !errors.Is(err, sys.ErrNotRedelivered) || sys.DropFirst(l.fd) != nil {
			break // others behind it may go
		}
	}
	if dropped > 0 {
		s.log.Warn("datagrams closed", "unit", l.unit, "instance", l.instance, "socket", l.real, "datagrams", dropped, "because", sys.ErrNotRedelivered)
	}
	for _, passes := range []error{sys.ErrNoRoom, sys.ErrNotRedelivered, unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM, unix.EMFILE, unix.ENFILE} {
		if errors.Is(err, passes) {
			return false
		}
	}
	if err != nil {
		s.log.Warn("datagrams closed", "unit", l.unit, "instance", l.instance, "socket", l.real, "because", err)
	}
	return true
}

// bringGone does it for sockets that a reload has no place for, if they go on nowhere else.
func (s *Supervisor) bringGone(gone []*socket) {
	for _, k := range gone {
		var of *unit
		moved := false
		for _, u := range s.units {
			if slices.Contains(u.leaving, k) {
				of = u
			}
			moved = moved || slices.ContainsFunc(u.sockets, func(o *socket) bool { return o.inode == k.inode })
		}
		if of != nil && !moved {
			s.bringAway(of, k)
		}
	}
}

// adoptLeft goes on with what an earlier supervisor has held.
func (s *Supervisor) adoptLeft(inv keeper.Inventory) {
	for held, fd := range inv.Descriptors {
		l, ok := parseLeft(held, fd)
		if !ok || slices.ContainsFunc(s.left, func(again left) bool { return again.held == held }) {
			continue // held again since, and fd is closed
		}
		s.bringLeft(l)
	}
}

// A taker is a socket that gets what is sent to its address.
type taker struct {
	fd     int
	routed bool // by a map of sockets: who is not in it gets nothing
}

// takers are the udp sockets on an address, whosever they are, without one: those that are
// dealt something or, if none is, all.
func (s *Supervisor) takers(real string, without *socket) (to []taker) {
	var all []taker
	for _, u := range s.units {
		for _, k := range u.sockets {
			if k == without || k.real != real || !strings.HasPrefix(k.addr.Network, "udp") || k.fd < 0 || k.instance > u.instances() {
				continue
			}
			g := u.groupOf(k)
			t := taker{k.fd, g != nil && g.steer.Level() == steer.EBPF}
			if all = append(all, t); k.instance == 0 || u.dealt(k) {
				to = append(to, t)
			}
		}
	}
	if to == nil {
		return all
	}
	return to
}

// dealt says whether a sibling gets what is new.
func (u *unit) dealt(k *socket) bool {
	weights := u.machine.Weights
	return (weights == nil || k.instance <= len(weights) && weights[k.instance-1] > 0) && (!u.twin(k) || k.seat == u.heads[k.instance])
}
