package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/sys"
)

// Where queues cannot be moved, those who wait for an instance that is down are served by
// its next process or by nobody. So a scale-down lets it come back first, and says how many
// were closed all the same.

// owedPatience is how long a scale-down waits for instances that are one too many and about
// to be back.
const owedPatience = 10 * time.Second

// letBack waits until every instance that is one too many, and for whose next process
// somebody waits, is ready or will not be.
func (s *Supervisor) letBack(ctx context.Context, name string, instances int) {
	ctx, cancel := context.WithTimeout(ctx, owedPatience)
	defer cancel()
	for {
		changed := s.changes.wait()
		owed := false
		err := s.ask(ctx, func() error {
			u := s.units[name]
			owed = u != nil && u.owed(instances)
			return nil
		})
		if err != nil || !owed {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		case <-s.quit:
			return
		}
	}
}

// owed says whether somebody waits for an instance beyond instances that is down, cannot be
// moved, and is about to be started.
func (u *unit) owed(instances int) bool {
	if u.machine.Spec.CanFlush || !u.machine.Up || u.machine.Paused || u.removed {
		return false
	}
	for _, k := range u.sockets {
		if k.instance <= instances || k.instance > len(u.machine.Instances) || waitsIn(k) == 0 {
			continue
		}
		in := &u.machine.Instances[k.instance-1]
		if !in.Ended && (len(in.Runs) == 0 || in.Runs[len(in.Runs)-1].State == machine.Starting) {
			return true
		}
	}
	return false
}

// waitsIn is how many connections wait in a listener; 0 of anything else.
func waitsIn(k *socket) int {
	if !k.listens() || k.fd < 0 {
		return 0
	}
	queued, _, _, _ := sys.Queue(k.fd)
	return queued
}

// sayClosed adds to the outcome of a scale-down how many connections it has cost.
func (s *Supervisor) sayClosed(out *Outcome, before int) {
	if st := s.shown(out.Unit); st != nil && st.closed > before && out.Outcome == Done {
		out.Because = fmt.Sprintf("%d connections were closed: they waited for instances that have left, and could not be moved", st.closed-before)
	}
}
