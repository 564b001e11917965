package steer

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// An engine carries out for one level what a steering has decided. It is told of
// every change of membership in the moment it happens.
type engine interface {
	level() Level
	// spread makes a table hold. weights is where it came from.
	spread(t *table, weights []int) error
	// migrates says whether a listener's connections move when it is shut down.
	migrates() bool
	// leaving comes just before fd is shut down, left just after. entered comes just
	// after fd has begun to listen, or was bound, as the newest member, and serves
	// place from then on.
	leaving(place, fd int) error
	left(place, fd int) error
	entered(place, fd int) error
	issue(place int, prefix uint32) error
	inherit(place, heir int) error
	counts(places int) (Counts, bool)
	held() map[string]int
	close(fd int) error // fd: any member, or -1
}

// A steering is the Group that all levels share: it keeps the books and the order of
// steps, an engine tells the kernel.
type steering struct {
	mu      sync.Mutex
	wire    wire
	engine  engine
	kind    kind
	why     string
	fds     []int // by place; -1 where there is none
	weights []int // as wished; as long as fds
	table   *table
	home    *table
	quiet   []time.Time // when a place lost its last slot; zero if it never had one
	closed  bool
}

func (g *steering) Level() Level { return g.engine.level() }
func (g *steering) Why() string  { return g.why }

func (g *steering) Set(weights []int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return ErrClosed
	}
	for place, w := range weights {
		if w < 0 || w > maxWeight {
			return fmt.Errorf("weight %d of place %d is not in 0..%d", w, place, maxWeight)
		}
	}
	wish := make([]int, len(g.fds))
	var problems []error
	for place, w := range weights {
		switch {
		case g.has(place):
			wish[place] = w
		case w > 0:
			problems = append(problems, fmt.Errorf("place %d: %w", place, ErrNoPlace))
		}
	}
	return errors.Join(append(problems, g.set(wish))...)
}

// set makes a wish hold, or changes nothing.
func (g *steering) set(wish []int) error {
	if !g.other(-1, func(int) bool { return true }) {
		g.weights = wish // nobody to steer to: the first to join is told
		return nil
	}
	t := g.plan(wish)
	err := g.engine.spread(t, g.present(wish))
	if errors.Is(err, ErrUnsteered) {
		g.weights = wish // Flush must know who lives all the same
	}
	if err != nil {
		return err
	}
	now := time.Now()
	had, has := owners(g.table), owners(t)
	for place := range g.fds {
		if had[place] && !has[place] {
			g.quiet[place] = now
		}
	}
	g.weights, g.table = wish, t
	return nil
}

// plan is the table for a wish. Where nobody is wished everybody holds.
func (g *steering) plan(wish []int) *table {
	sum := 0
	for _, w := range wish {
		sum += w
	}
	if sum == 0 {
		wish = make([]int, len(g.fds))
		for place := range wish {
			if g.has(place) {
				wish[place] = 1
				sum++
			}
		}
	}
	if sum == 0 {
		return g.table // no socket at all
	}
	return next(g.table, g.home, shares(wish))
}

// present is the weights of the places that have a socket.
func (g *steering) present(wish []int) []int {
	var list []int
	for place, w := range wish {
		if g.has(place) {
			list = append(list, w)
		}
	}
	return list
}

func (g *steering) has(place int) bool {
	return place >= 0 && place < len(g.fds) && g.fds[place] >= 0
}

// check says why nothing can be done about a place.
func (g *steering) check(place int) error {
	if g.closed {
		return ErrClosed
	}
	if !g.has(place) {
		return fmt.Errorf("place %d: %w", place, ErrNoPlace)
	}
	return nil
}

func (g *steering) Flush(place int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.check(place); err != nil {
		return err
	}
	switch {
	case !g.kind.stream:
		return ErrDatagrams
	case g.weights[place] > 0:
		return fmt.Errorf("place %d: %w", place, ErrSteered)
	case !g.other(place, func(p int) bool { return g.weights[p] > 0 }):
		return ErrLast
	case !g.engine.migrates():
		return ErrNoMigration
	}
	fd := g.fds[place]
	_, _, backlog, err := g.wire.look(fd)
	if err != nil {
		return err
	}
	g.settle(place)
	err = g.out(place, fd)
	// Whatever has gone wrong: it must listen again.
	if listening, _, _, e := g.wire.look(fd); e == nil && !listening {
		err = errors.Join(err, g.in(place, fd, backlog))
	}
	return err
}

// out takes a socket out of the kernel's group.
func (g *steering) out(place, fd int) error {
	if err := g.engine.leaving(place, fd); err != nil {
		return err
	}
	// With a map a datagram socket need not be touched: who is not in it is not chosen.
	// To connect it would make the kernel look at every member for every datagram from
	// then on (reuseport_has_conns).
	if g.kind.stream || g.engine.level() != EBPF {
		if err := g.wire.shutdown(fd, g.kind.stream); err != nil {
			return err
		}
	}
	return g.engine.left(place, fd)
}

// in brings a listener that was shut down back, as the newest member.
func (g *steering) in(place, fd, backlog int) error {
	if backlog <= 0 {
		backlog = maxBacklog // somebody else had shut it down, and with it went the number
	}
	if err := g.wire.listen(fd, backlog); err != nil {
		return err
	}
	return g.engine.entered(place, fd)
}

// other says whether another place can take what place cannot keep.
func (g *steering) other(place int, fit func(int) bool) bool {
	for p, fd := range g.fds {
		if p == place || fd < 0 || !fit(p) {
			continue
		}
		if !g.kind.stream {
			return true
		}
		if listening, _, _, err := g.wire.look(fd); err == nil && listening {
			return true
		}
	}
	return false
}

// settle waits until nobody can be on the way to a place that has lost its slots.
func (g *steering) settle(place int) {
	if rest := Settle - time.Since(g.quiet[place]); rest > 0 {
		g.wire.wait(rest)
	}
}

func (g *steering) Counts() (Counts, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return Counts{}, false
	}
	return g.engine.counts(len(g.fds))
}

func (g *steering) Held() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	return g.engine.held()
}

func (g *steering) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	member := -1
	for _, fd := range g.fds {
		member = max(member, fd)
	}
	return g.engine.close(member)
}

// owners is the set of places that a table gives something to.
func owners(t *table) (has [MaxPlaces]bool) {
	for _, p := range t {
		has[p] = true
	}
	return has
}
