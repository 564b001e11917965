package supervisor

import (
	"context"
	"slices"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/steer"
)

// lateHandshake is how many milliseconds a queue must be empty: a handshake that began
// before takes a round trip. A client's second try comes later, at the earliest after 1 s.
const lateHandshake = 100

// growing is how many it is where the socket cannot be made deaf: others come all the time.
const growing = 3

// retire is how an instance that is one too many leaves a group that nobody steers: its
// socket takes no notice of new connections, and its run is told to leave when it has
// accepted those there are, or half of its stop timeout has passed. Who comes meanwhile
// tries again after a second and comes to a sibling. It says whether it was called for.
func (s *Supervisor) retire(u *unit, id keeper.ID) bool {
	if !u.machine.Up || id.Instance <= u.machine.Spec.Instances {
		return false
	}
	var fds []int
	looks := lateHandshake
	for _, k := range u.sockets {
		if k.instance != id.Instance || !k.listens() {
			continue
		}
		if g := u.groupOf(k); g != nil && g.steer.Level() != steer.Hash {
			continue
		}
		fds = append(fds, k.fd)
		if err := steer.Deafen(k.fd); err != nil {
			s.log.Warn("queue goes on growing", "unit", u.conf.Name, "socket", k.where(), "err", err)
			looks = growing
			continue
		}
		k.deaf = true
	}
	if fds == nil {
		return false
	}
	patience := 30 * time.Second // where it may take for ever to leave
	if limit := u.conf.Service.StopTimeout; limit > 0 {
		patience = limit / 2
	}
	sig := u.stopSignal
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		s.seenEmpty(ctx, fds, looks)
		s.ask(context.Background(), func() error {
			if s.units[u.conf.Name] == u && u.machineRun(id) != nil {
				s.signal(u, id, sig)
			}
			return nil
		})
	}()
	return true
}

// hearAgain does it for those of a group's sockets whose instances are wanted, or can be steered away
// from: a supervisor before us may have died while one of them retired.
func (u *unit) hearAgain(fds []int, steered bool) {
	for _, k := range u.sockets {
		if k.deaf && slices.Contains(fds, k.fd) && (steered || k.instance <= u.instances()) {
			k.hear()
		}
	}
}

// hear ends what retire has begun: the instance is wanted again.
func (k *socket) hear() {
	if k.deaf && steer.Undeafen(k.fd) == nil {
		k.deaf = false
	}
}
