package steer

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// maxBacklog is cut by the kernel to net.core.somaxconn (listen(2)).
const maxBacklog = math.MaxInt32

func (g *steering) Join(place, fd int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return ErrClosed
	}
	if place < 0 || place >= MaxPlaces {
		return fmt.Errorf("place %d is not in 0..%d: %w", place, MaxPlaces-1, ErrNoPlace)
	}
	if err := g.fits(fd); err != nil {
		return fmt.Errorf("place %d: join: %w", place, err)
	}
	g.grow(place + 1)
	var err error
	switch old := g.fds[place]; old {
	case -1:
		err = g.engine.entered(place, fd)
		if err == nil {
			g.fds[place] = fd
		}
	case fd:
		// It was shut down behind our back, and has been made to listen again.
		err = errors.Join(g.engine.left(place, fd), g.engine.entered(place, fd))
	default:
		err = g.replace(place, old, fd)
	}
	if err != nil {
		return fmt.Errorf("place %d: join: %w", place, err)
	}
	return g.again()
}

// fits says what is wrong with a socket that is to join.
func (g *steering) fits(fd int) error {
	k, err := g.wire.kind(fd)
	if err != nil {
		return err
	}
	if k != g.kind {
		return fmt.Errorf("descriptor %d is %s, the group is %s", fd, k, g.kind)
	}
	if !g.kind.stream {
		return nil
	}
	listening, _, _, err := g.wire.look(fd)
	if err == nil && !listening {
		return fmt.Errorf("descriptor %d does not listen", fd)
	}
	return err
}

// again makes the same wish hold over changed members.
func (g *steering) again() error {
	err := g.set(g.weights)
	if errors.Is(err, ErrUnsteered) {
		return nil // was said when the wish was made
	}
	return err
}

// grow makes room for n places. Slots go on belonging to whom they belong.
func (g *steering) grow(n int) {
	if n <= len(g.fds) {
		return
	}
	before := len(g.fds)
	for len(g.fds) < n {
		g.fds = append(g.fds, -1)
		g.weights = append(g.weights, 0)
		g.quiet = append(g.quiet, time.Time{})
	}
	g.home = extend(g.home, before, n)
}

// replace puts a second socket into a place. The new one serves before the old one
// leaves, so that the old one's queue can move to it.
func (g *steering) replace(place, old, fd int) error {
	if err := g.mayGo(old, g.engine.migrates()); err != nil {
		return err
	}
	if err := g.engine.entered(place, fd); err != nil {
		return err
	}
	g.fds[place] = fd
	if err := g.again(); err != nil {
		return err
	}
	g.wire.wait(Settle)
	return g.out(place, old)
}

// mayGo says whether nobody who waits in a socket is lost when it is shut down.
func (g *steering) mayGo(fd int, movable bool) error {
	if !g.kind.stream || movable {
		return nil
	}
	listening, queued, _, err := g.wire.look(fd)
	if err != nil {
		return err
	}
	if listening && queued > 0 {
		return fmt.Errorf("%d wait: %w", queued, ErrNoMigration)
	}
	return nil
}

func (g *steering) Leave(place int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.check(place); err != nil {
		return err
	}
	// Who waits may also move to places that only hold, if no place serves.
	others := g.other(place, func(int) bool { return true })
	movable := others && g.engine.migrates()
	fd := g.fds[place]
	if err := g.mayGo(fd, movable); err != nil {
		return last(err, others)
	}

	before := append([]int(nil), g.weights...)
	if err := g.without(place); err != nil {
		return err
	}
	g.settle(place)
	if err := g.mayGo(fd, movable); err != nil {
		// Somebody came in the last moment.
		g.fds[place] = fd
		return errors.Join(last(err, others), g.restore(before))
	}
	return g.out(place, fd)
}

func last(err error, others bool) error {
	if errors.Is(err, ErrNoMigration) && !others {
		return ErrLast
	}
	return err
}

// without spreads over all places but one, which has no socket from then on.
func (g *steering) without(place int) error {
	fd, before := g.fds[place], g.weights[place]
	g.fds[place], g.weights[place] = -1, 0
	if err := g.again(); err != nil {
		g.fds[place], g.weights[place] = fd, before
		return err
	}
	return nil
}

func (g *steering) restore(weights []int) error {
	g.weights = weights
	return g.again()
}
