package supervisor

import (
	"slices"
	"strings"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// The kernel lets sockets share a port only if they are one user's. Who has a socket may
// give it to another user (fchown(2)), and services that are about to become that user do:
// no sibling could be bound beside it then, nor come back after a flush.

// takeBack makes the sockets on a port ours again, and says whether one was not.
func (s *Supervisor) takeBack(address string) (any bool) {
	port := address[strings.LastIndexByte(address, ':')+1:]
	for _, u := range s.units {
		for _, k := range slices.Concat(u.sockets, u.leaving) {
			if k.options != nil && k.options.ReusePort && strings.HasSuffix(k.real, ":"+port) && s.own(u, k.fd) {
				any = true
			}
		}
	}
	return any
}

// own makes a socket ours again, and says whether it was another user's.
func (s *Supervisor) own(u *unit, fd int) bool {
	if fd < 0 {
		return false
	}
	was, err := sys.Own(fd)
	switch {
	case err != nil:
		s.log.Warn("socket of another user", "unit", u.conf.Name, "uid", was, "err", err)
	case was >= 0:
		s.log.Info("socket taken back", "unit", u.conf.Name, "because", "a process of the unit had given it to another user", "uid", was)
	}
	return was >= 0 && err == nil
}

// ownGroup makes all of a group's sockets ours again, so that one of them can come back.
func (s *Supervisor) ownGroup(u *unit, g *group) {
	for _, fd := range g.fds {
		s.own(u, fd)
	}
}
