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
	u.lookNoMore(instance) // what was asked for before is void
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
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	u.looks[instance] = cancel
	go func() {
		if !s.seenEmpty(ctx, fds, 3) {
			cancel()
			return // the machine does not wait any more, or has lost its patience too
		}
		select {
		case s.empty <- emptied{u, instance, ctx.Done()}:
		case <-ctx.Done():
		case <-s.quit:
			cancel()
		}
	}()
}

// An emptied is what comes of the looks that a unit's machine has asked for.
type emptied struct {
	unit     *unit
	instance int
	void     <-chan struct{} // closed when the machine waits for it no more
}

// areEmpty takes what came of looks.
func (s *Supervisor) areEmpty(all []emptied) {
	var ds []*decision
	for _, e := range all {
		select {
		case <-e.void:
		default:
			ds = append(ds, s.decide(e.unit, len(s.untold), machine.Emptied{Instance: e.instance}))
		}
	}
	s.settle(ds)
}

// settleLooks ends those that the machine waits for no more.
func (s *Supervisor) settleLooks(u *unit) {
	for instance := range u.looks {
		if instance > len(u.machine.Instances) || u.machine.Instances[instance-1].EmptyBy == 0 {
			u.lookNoMore(instance)
		}
	}
}

func (u *unit) lookNoMore(instance int) {
	if cancel := u.looks[instance]; cancel != nil {
		cancel()
		delete(u.looks, instance)
	}
}

// seenEmpty waits until the queues of listeners were empty in so many looks in a row, a
// millisecond apart. It gives up when one of them has been closed.
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
			queued, _, _, err := sys.Queue(fd)
			if err != nil {
				return false
			}
			if queued > 0 {
				empty = 0
			}
		}
	}
	return true
}
