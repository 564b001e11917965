package supervisor

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"golang.org/x/sys/unix"
)

// What a process has not read when its instance leaves for good is sent to its siblings.
// Where they have no room for all of it the rest is held until they have, by whichever
// supervisor there is then: left/web/2/127.0.0.1:53/4711.
const leftHeld = "left/"

// bringAway does it with a udp socket that has left its group and is about to be closed.
func (s *Supervisor) bringAway(u *unit, g *group, at int) {
	if g.fds[at] < 0 || !strings.HasPrefix(g.place.addr.Network, "udp") {
		return
	}
	instance := at/g.seats + 1
	err := s.redeliver(u, g.place.name, instance, g.fds[at], g.fds[g.at(1, u.heads[1])])
	if errors.Is(err, sys.ErrNoRoom) {
		err = s.holdLeft(u, g.fds[at])
	}
	if err != nil {
		s.log.Warn("datagrams closed", "unit", u.conf.Name, "instance", instance, "socket", g.place.name, "because", err)
	}
}

func (s *Supervisor) holdLeft(u *unit, fd int) error {
	for _, k := range u.sockets {
		if k.fd != fd {
			continue
		}
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return err
		}
		held := fmt.Sprintf("%s%s/%d/%s/%d", leftHeld, u.conf.Name, k.instance, k.real, k.inode)
		if err := s.keeper.Hold(held, dup); err != nil {
			unix.Close(dup)
			return err
		}
		s.bringLeft(held, dup)
	}
	return nil
}

// bringLeft sends on what waits in a socket that is held for it, as room comes.
func (s *Supervisor) bringLeft(held string, fd int) {
	parts := strings.Split(held, "/")
	name, real := parts[1], parts[3]
	instance, _ := strconv.Atoi(parts[2])
	s.tryAgain(func() bool {
		u := s.units[name]
		to := u.siblingAt(real)
		err := errors.New("nobody has their address any more")
		if to != nil {
			err = s.redeliver(u, to.name, instance, fd, to.fd)
		}
		switch {
		case errors.Is(err, sys.ErrNoRoom):
			return false
		case err != nil:
			s.log.Warn("datagrams closed", "unit", name, "instance", instance, "address", real, "because", err)
		}
		s.keeper.Release(held)
		return true
	})
}

// adoptLeft goes on with what an earlier supervisor has held.
func (s *Supervisor) adoptLeft(inv keeper.Inventory) {
	for held, fd := range inv.Descriptors {
		if strings.HasPrefix(held, leftHeld) {
			s.bringLeft(held, fd)
		}
	}
}

// siblingAt is the first instance's udp socket on an address, or nil. A nil unit has none.
func (u *unit) siblingAt(real string) *socket {
	if u == nil {
		return nil
	}
	for _, k := range u.sockets {
		if k.instance == 1 && k.seat == u.heads[1] && k.real == real && strings.HasPrefix(k.addr.Network, "udp") {
			return k
		}
	}
	return nil
}
