package supervisor

import (
	"slices"
	"strings"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/steer"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

// Flows of udp that stay with their instance: what the unit file says of them, and
// whether it can be had.

// What a SocketStatus says of flows.
const (
	flowsKept    = "sticky"
	flowsQUIC    = "quic"
	flowsNotKept = "not kept" // the unit file asks for it, and steering here cannot
)

// flowOptions is what the unit file says of the flows of a group's sockets.
func (u *unit) flowOptions(p place, seats int) (o steer.Options) {
	i := slices.IndexFunc(u.conf.Sockets, func(k units.Socket) bool { return k.Name == p.name })
	if i < 0 || !strings.HasPrefix(p.addr.Network, "udp") {
		return o
	}
	k := u.conf.Sockets[i]
	o.Sticky = k.Flows != "" && k.PerInstance
	o.ConnectionIDs = k.Flows == units.QUIC && seats == 2
	o.Flows, o.FlowTimeout = k.FlowsMax, k.FlowsTimeout
	return o
}

// flows is what status says of a socket's flows; "" where nothing was asked for.
func (u *unit) flows(k *socket) string {
	if !u.flowOptions(place{name: k.name, addr: k.addr}, 1).Sticky {
		return ""
	}
	switch g := u.groupOf(k); {
	case g == nil || g.steer.Level() != steer.EBPF:
		return flowsNotKept
	case g.options.ConnectionIDs:
		return flowsQUIC
	}
	return flowsKept
}

// warnFlows says once for a group that its flows are not kept.
func (s *Supervisor) warnFlows(u *unit, g *group) {
	if !g.options.Sticky || g.steer.Level() == steer.EBPF {
		return
	}
	s.log.Warn("flows not kept", "unit", u.conf.Name, "socket", g.place.name, "level", g.steer.Level(), "because", g.because())
}

// changeFlows opens groups again that the unit file wants with other flows now. Shares
// and counts go on; flows that the kernel knew are forgotten if there may be another
// number of them. For a moment the kernel's hash chooses.
func (s *Supervisor) changeFlows(u *unit) {
	for _, g := range slices.Clone(u.groups) {
		was, is := g.options, u.flowOptions(g.place, g.seats)
		if was.Sticky == is.Sticky && was.ConnectionIDs == is.ConnectionIDs && was.Flows == is.Flows && was.FlowTimeout == is.FlowTimeout {
			continue
		}
		inv := keeper.Inventory{Descriptors: map[string]int{}}
		for name, fd := range g.steer.Held() {
			if dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err == nil {
				inv.Descriptors[u.steerPrefix(g.place)+name] = dup
			}
		}
		s.closeGroup(g)
		u.groups = slices.DeleteFunc(u.groups, func(o *group) bool { return o == g })
		s.openGroup(u, group{place: g.place, fds: g.fds, ours: g.ours, seats: g.seats}, inv)
		for _, fd := range inv.Descriptors {
			unix.Close(fd)
		}
		s.setWeights(u, u.machine.Weights)
	}
}
