package supervisor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"golang.org/x/sys/unix"
)

// readySockets makes a unit's sockets fit to be handed to a new run: paths that somebody
// has removed are put back, a listener that a service has shut down listens again,
// and O_NONBLOCK is as the unit file says, but only while no other run has them.
func (s *Supervisor) readySockets(u *unit, sockets []*socket, instance int, gen uint64) {
	for _, k := range sockets {
		s.healPath(u, k, false, gen)
		k.hear()
		s.listenAgain(u, k)
		if s.alone(u, k, gen) {
			if err := sys.SetNonblock(k.fd, k.options.NonBlocking); err != nil {
				s.log.Warn("blocking mode not set", "unit", u.conf.Name, "socket", k.where(), "err", err)
			}
		}
	}
}

// listenAgain cures shutdown(2), which a service does to everybody's listener, and
// says whether it had to.
func (s *Supervisor) listenAgain(u *unit, k *socket) bool {
	if !k.listens() {
		return false
	}
	err := sys.ErrShutDown
	if k.fd >= 0 {
		var listening bool
		if listening, err = sys.Listening(k.fd); err == nil && listening {
			return false
		}
	}
	if err == nil {
		if g := u.groupOf(k); g != nil {
			s.ownGroup(u, g)
		}
		err = sys.ListenAgain(k.fd, k.options.Backlog)
	}
	if errors.Is(err, sys.ErrShutDown) { // a Unix listener: the kernel lets none come back
		err = s.bindAgain(u, k)
	}
	if err != nil {
		s.log.Error("not listening", "unit", u.conf.Name, "socket", k.where(), "err", err)
		return false
	}
	s.log.Warn("listening again", "unit", u.conf.Name, "socket", k.where(), "because", "a process of the unit had shut it down", "last", u.lastRun(k.instance))
	if u.savedSockets == nil { // it is another one
		if err := s.save(u); err != nil {
			s.log.Error("not saved", "unit", u.conf.Name, "err", err)
		}
	}
	s.rejoin(u, k)
	if u.watches(k.instance) { // what was armed has fired, or was another socket
		s.watchSocket(u, k)
	}
	return true
}

// bindAgain puts a new socket in the place of one that is beyond healing. If the keeper
// cannot hold it there is none, fd is -1, and the next call tries again.
func (s *Supervisor) bindAgain(u *unit, k *socket) error {
	if k.key != 0 { // what was heard of the old one is void: it had no caller
		s.watch.Remove(k.fd)
		delete(s.targets, k.key)
		k.key = 0
	}
	if k.path != nil {
		if err := k.path.Remove(); err != nil {
			return err
		}
	}
	bound, err := sys.Bind(k.addr.Network, k.addr.Address, *k.options)
	if err != nil {
		return err
	}
	if err := s.keeper.Hold(k.held, bound.FD); err != nil {
		unix.Close(bound.FD)
		return err
	}
	u.savedSockets = nil
	if err := s.keeper.Settle(); err != nil {
		if bound.Path != nil {
			bound.Path.Remove()
		}
		s.keeper.Release(k.held)
		k.fd, k.inode = -1, 0
		return err
	}
	k.fd, k.path, k.inode, k.lost = bound.FD, bound.Path, inodeOf(bound.FD), ""
	return nil
}

// listens: datagram sockets have no queue of connections.
func (k *socket) listens() bool {
	return !strings.HasPrefix(k.addr.Network, "udp") && k.addr.Network != "unixgram"
}

// alone says whether no run but gen holds the socket.
func (s *Supervisor) alone(u *unit, k *socket, gen uint64) bool {
	for g, r := range u.runs {
		if g != gen && !r.exited && (k.instance == 0 || k.instance == r.id.Instance && (k.seat == r.seat || !u.twin(k))) {
			return false
		}
	}
	for name, upto := range k.others {
		if other := s.units[name]; other != nil && other != u {
			for g, r := range other.runs {
				if g <= upto && !r.exited {
					return false
				}
			}
		}
	}
	return true
}

// lastRun names the youngest process that may have done something to the sockets of an
// instance, or, for 0, to shared ones.
func (u *unit) lastRun(instance int) string {
	last := keeper.ID{Unit: u.conf.Name}
	pid := 0
	for _, r := range u.runs {
		if r.pid != 0 && r.id.Gen > last.Gen && (instance == 0 || r.id.Instance == instance) {
			last, pid = r.id, r.pid
		}
	}
	for i, e := range u.lastExit { // if none of them lives
		if e.Gen > last.Gen && e.Pid != 0 && (instance == 0 || i+1 == instance) {
			last.Instance, last.Gen, pid = i+1, e.Gen, e.Pid
		}
	}
	if pid == 0 {
		return "none"
	}
	return fmt.Sprintf("%s (pid %d)", last, pid)
}
