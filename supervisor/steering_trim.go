package supervisor

import (
	"maps"
	"slices"
)

// trim parts from sockets of instances that are no more.
func (s *Supervisor) trim(u *unit) {
	n := len(u.machine.Instances)
	if !slices.ContainsFunc(u.sockets, func(k *socket) bool { return k.instance > n }) {
		return
	}
	var gone, kept []*socket
	for _, k := range u.sockets {
		if k.instance > n {
			gone = append(gone, k)
			continue
		}
		kept = append(kept, k)
	}
	for _, g := range u.groups {
		for i := len(g.fds) - 1; i >= n*g.seats; i-- {
			s.leaveGroup(u, g, i)
		}
		g.fds = g.fds[:min(n*g.seats, len(g.fds))]
	}
	maps.DeleteFunc(u.heads, func(instance int, _ int8) bool { return instance > n })
	u.setSockets(kept)
	for i, k := range gone {
		s.bringAway(u, k)
		u.closed += waitsIn(k)   // nobody steers it: its group has not closed it
		s.release(gone[i : i+1]) // before the next is held: there may be no room for twice as many
	}
	s.spreadSockets(u)
}
