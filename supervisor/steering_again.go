package supervisor

import (
	"slices"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/steer"
)

// steerPatience is how long a supervisor that begins waits, for all groups together, until
// the kernel has let go of what had steered them under a keeper that was killed. Nobody
// decides meanwhile. Where it takes longer the group is served by a lesser level at first.
const steerPatience = 300 * time.Millisecond

// steerBetter opens a group anew for which the best level was not to be had, as its sockets
// were still another's; it says whether that is done. For a moment the kernel's hash
// chooses.
func (s *Supervisor) steerBetter(u *unit, g *group) (done bool) {
	if !slices.Contains(u.groups, g) {
		return true
	}
	if steer.Busy(g.fds) {
		return false
	}
	s.closeGroup(g)
	u.groups = slices.DeleteFunc(u.groups, func(o *group) bool { return o == g })
	s.openGroup(u, group{place: g.place, fds: g.fds, ours: g.ours, seats: g.seats}, keeper.Inventory{})
	s.setWeights(u, u.machine.Weights)
	s.bringAll(u)
	s.refit(u)
	s.publish(u)
	return true
}
