package supervisor

import (
	"context"
	"time"

	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/sys"
)

// awaitEmpty carries out machine.AwaitEmpty: three looks in a row, a millisecond
// apart, in a goroutine that ends with the wait.
func (s *Supervisor) awaitEmpty(u *unit, instance int) {
	u.emptyAsked[instance]++ // what was asked for before is void
	asked := u.emptyAsked[instance]
	var fds []int
	for _, k := range u.sockets {
		if k.instance == instance && k.listens() {
			fds = append(fds, k.fd)
		}
	}
	patience := u.conf.Service.StopTimeout
	if patience == 0 {
		patience = time.Second
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if !s.seenEmpty(ctx, fds, 3) {
			return // the machine has lost its patience too
		}
		s.ask(ctx, func() error {
			if s.units[u.conf.Name] == u && u.emptyAsked[instance] == asked {
				s.handle(u, machine.Emptied{Instance: instance})
			}
			return nil
		})
	}()
}

// seenEmpty waits until the queues of listeners were empty in so many looks in a row, a
// millisecond apart.
func (s *Supervisor) seenEmpty(ctx context.Context, fds []int, looks int) bool {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for empty := 0; empty < looks; {
		select {
		case <-tick.C:
		case <-s.quit:
			return false
		case <-ctx.Done():
			return false
		}
		empty++
		for _, fd := range fds {
			if queued, _, _, err := sys.Queue(fd); err != nil || queued > 0 {
				empty = 0
			}
		}
	}
	return true
}
