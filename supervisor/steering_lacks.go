package supervisor

import (
	"errors"
	"strings"

	"github.com/sockd/sockd/supervisor/internal/steer"
	"golang.org/x/sys/unix"
)

// because says why a group is steered no better than it is; "" where nothing is better.
func (g *group) because() string {
	switch {
	case g.steer.Level() == steer.EBPF:
		return ""
	case !g.ours:
		return "sockets that are not this unit's are on the same address"
	case g.steer.Why() == "":
		return levelVariable + " asks for no better"
	}
	return g.steer.Why()
}

// lacks says in few words what clients of a group miss for want of a better level, and
// what would mend it; "" where nothing is better.
func (g *group) lacks() string {
	var what string
	switch {
	case g.steer.Level() == steer.EBPF:
		return ""
	case g.steer.Level() == steer.Hash:
		what = "an instance that is down gets its share all the same, and holds it until it is back"
	case g.options.Sticky:
		what = "a peer may come to another instance when instances come and go"
	case strings.HasPrefix(g.place.addr.Network, "udp"), migration():
		what = "nothing is counted"
	default:
		what = "who waits for an instance that dies waits until it is back"
	}
	why := g.because()
	if g.ours && g.steer.Why() != "" {
		why = "eBPF would be better: see `sockd doctor`"
		if err := probe().Levels[0].Err; errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			why = "CAP_BPF would mend that: see `sockd doctor`"
		}
	}
	return what + "; " + why
}
