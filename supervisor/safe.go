package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// Safe mode: supervisors have died again and again soon after their start, so this
// one shows what there is and changes nothing. Services run on, sockets stay open,
// output waits in the pipes.

// errSafe answers every wish in safe mode.
func (s *Supervisor) errSafe() error {
	return fmt.Errorf("safe mode: sockd answers and changes nothing, since supervisors before it died: %s (send SIGHUP to try again)", s.safe())
}

// safe is why there is safe mode; "" if there is none.
func (s *Supervisor) safe() string {
	if s.cfg.Keeper == nil {
		return ""
	}
	return s.cfg.Keeper.safe
}

// show publishes the units as they were saved, with the processes the keeper lists.
func (s *Supervisor) show(inv keeper.Inventory) {
	s.log.Error("safe mode", "because", s.safe())
	children := childrenOf(inv)
	for _, u := range s.sorted() {
		for _, c := range children[u.conf.Name] {
			u.runs[c.ID.Gen] = &run{id: c.ID, unit: u, pid: c.Pid, asked: time.Now(), notify: -1, log: -1, logDone: true}
		}
		s.publish(u)
	}
	s.publishUnits()
}

// answer is the loop of safe mode. It acknowledges no news. When it is told to stop, the
// keeper ends the processes; after Keeper.Again the next supervisor is an ordinary one.
func (s *Supervisor) answer(ctx context.Context) error {
	for {
		select {
		case r := <-s.requests:
			r.done <- s.errSafe()
		case <-ctx.Done():
			return fmt.Errorf("stopped in safe mode: %w", context.Cause(ctx))
		case <-s.cfg.Keeper.remote.Gone():
			s.crashed = errKeeperGone
			return s.crashed
		}
	}
}
