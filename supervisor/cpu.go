package supervisor

import (
	"fmt"
	"strings"

	"github.com/sockd/sockd/supervisor/internal/steer"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
)

// cpu = "spread": instances on one CPU each, and their sockets with them where that
// helps.

// cpu is the CPU for an instance's next process, counted from 1; 0: any.
func (u *unit) cpu(instance int) (int, error) {
	if u.conf.Service.CPU != units.Spread {
		return 0, nil
	}
	cpus, err := sys.CPUs()
	if err != nil {
		return 0, fmt.Errorf("cpu: %w", err)
	}
	return 1 + cpus[(instance-1)%len(cpus)], nil
}

// spreadSockets gives each sibling what arrives on its instance's CPU, where the
// kernel chooses, and only if every CPU has its sibling: what arrives on one that has
// none would fall to a few, and with too many siblings some would starve; so would sockets
// in the group that are not this unit's. Where a program steers, it alone chooses, and the setting is taken back
// so that it says nothing untrue.
func (s *Supervisor) spreadSockets(u *unit) {
	siblings := 0
	for _, k := range u.sockets {
		siblings = max(siblings, k.instance)
	}
	if siblings == 0 {
		return
	}
	spread := u.conf.Service != nil && u.conf.Service.CPU == units.Spread
	cpus, err := sys.CPUs()
	spread = spread && err == nil && siblings == len(cpus)
	for _, k := range u.sockets {
		if k.instance == 0 || strings.HasPrefix(k.addr.Network, "unix") {
			continue
		}
		cpu := sys.AnyCPU
		if g := u.groupOf(k); spread && (g == nil || g.steer.Level() == steer.Hash) && s.steerable(u, k) {
			cpu = cpus[k.instance-1]
		}
		if err := sys.IncomingCPU(k.fd, cpu); err != nil {
			s.log.Warn("CPU of socket not set", "unit", u.conf.Name, "socket", k.where(), "cpu", cpu, "err", err)
		}
	}
}
