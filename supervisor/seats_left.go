package supervisor

import (
	"context"
	"errors"
	"time"

	"github.com/sockd/sockd/supervisor/internal/steer"
	"github.com/sockd/sockd/supervisor/internal/sys"
)

// A run that leaves may not have read all that came to its seat, and the next one sits on
// the other: what waits in the seat that was left is sent to the head, where its flows go
// now. Where that cannot be done, for want of CAP_NET_RAW perhaps, the next run that sits
// there reads it.

// bringSoon does that for an instance's seats once nothing new can come to those that
// nobody sits on.
func (s *Supervisor) bringSoon(u *unit, instance int) {
	go func() {
		select {
		case <-time.After(steer.Settle): // who had chosen the seat before has come by now
		case <-s.quit:
			return
		}
		s.ask(context.Background(), func() error {
			if !s.bring(u, instance) {
				s.tryAgain(func() bool { return s.bring(u, instance) })
			}
			return nil
		})
	}()
}

// bringAll does it for all instances: a supervisor before us may have died over it, and
// while a group is opened the kernel deals to every seat.
func (s *Supervisor) bringAll(u *unit) {
	for i := range u.machine.Instances {
		if !s.bring(u, i+1) {
			s.bringSoon(u, i+1)
		}
	}
}

// bring says whether nothing is left that could be brought later.
func (s *Supervisor) bring(u *unit, instance int) (done bool) {
	done = true
	for _, k := range u.sockets {
		if k.instance != instance || k.seat == u.heads[instance] || u.sits(instance, k.seat) {
			continue
		}
		g := u.groupOf(k)
		if g == nil || !g.routes() || g.busy {
			continue
		}
		err := s.redeliver(u.conf.Name, k.name, instance, k.fd, g.fds[g.at(instance, u.heads[instance])])
		switch {
		case errors.Is(err, sys.ErrNoRoom):
			done = false
		case err != nil:
			s.log.Warn("datagrams held until the next replacement", "unit", u.conf.Name, "instance", instance, "socket", k.name, "because", err)
		}
	}
	return done
}

// redeliver sends what waits in a socket that is dealt nothing any more to those that are,
// while each of to has room.
func (s *Supervisor) redeliver(unit, socket string, instance, from int, to ...int) error {
	if queued, _, _, err := sys.Queue(from); err != nil || queued == 0 {
		return nil
	}
	n, err := sys.Redeliver(from, to...)
	if n > 0 {
		s.log.Info("datagrams moved", "unit", unit, "instance", instance, "socket", socket, "datagrams", n)
	}
	return err
}

// sits says whether a run of an instance lives on a seat.
func (u *unit) sits(instance int, seat int8) bool {
	for _, r := range u.runs {
		if r.id.Instance == instance && r.seat == seat && !r.exited {
			return true
		}
	}
	return false
}
