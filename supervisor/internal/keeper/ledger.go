package keeper

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrClosed means that the keeper has been closed.
var ErrClosed = errors.New("keeper: closed")

// A Ledger is the part of a keeper that is bookkeeping: what is held, which runs
// are listed, which news is not yet acknowledged. A keeper embeds one and adds
// processes, real or played. Its memory is bounded by what is held and listed.
type Ledger struct {
	mu     sync.Mutex
	closed bool
	held   map[string]*descriptor
	states map[string][]byte
	runs   map[ID]*Child
	queue  []Event // on the way to events, oldest first
	moving bool    // the first of them has left the queue and has not arrived
	more   *sync.Cond
	done   chan struct{}
	events chan Event
}

// A descriptor is closed when nobody holds or borrows it any more.
type descriptor struct {
	name  string
	fd    int
	users int
}

// NewLedger makes an empty one.
func NewLedger() *Ledger {
	l := &Ledger{
		held:   map[string]*descriptor{},
		states: map[string][]byte{},
		runs:   map[ID]*Child{},
		done:   make(chan struct{}),
		events: make(chan Event),
	}
	l.more = sync.NewCond(&l.mu)
	go l.deliver()
	return l
}

// Hold implements Keeper.
func (l *Ledger) Hold(name string, fd int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return fmt.Errorf("hold %s: descriptor %d: %w", name, fd, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	old := l.held[name]
	if old != nil && old.fd == fd {
		return nil
	}
	l.held[name] = &descriptor{name: name, fd: fd, users: 1}
	l.drop(old)
	return nil
}

// Release implements Keeper.
func (l *Ledger) Release(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.held[name]
	delete(l.held, name)
	l.drop(d)
	return nil
}

// Settle implements Keeper: what is asked of a ledger is done at once, or refused.
func (l *Ledger) Settle() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	return nil
}

// drop gives up one use of d.
func (l *Ledger) drop(d *descriptor) {
	if d == nil {
		return
	}
	if d.users--; d.users == 0 {
		closeHeld(d.name, d.fd)
	}
}

// Save implements Keeper.
func (l *Ledger) Save(unit string, state []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	if state == nil {
		delete(l.states, unit)
	} else {
		l.states[unit] = keepIn(l.states[unit], state)
	}
	return nil
}

// keepIn copies state, into the memory of the one before if that is about as large.
func keepIn(before, state []byte) []byte {
	if n := cap(before); before == nil || n < len(state) || n > 2*len(state)+64 {
		before = make([]byte, 0, len(state)+len(state)/8)
	}
	return append(before[:0], state...)
}

// Inventory implements Keeper.
func (l *Ledger) Inventory() (Inventory, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return Inventory{}, ErrClosed
	}
	inv := Inventory{
		Descriptors: make(map[string]int, len(l.held)),
		Children:    make([]Child, 0, len(l.runs)),
		States:      make(map[string][]byte, len(l.states)),
	}
	for name, d := range l.held {
		inv.Descriptors[name] = d.fd
	}
	size := 0
	for _, state := range l.states {
		size += len(state)
	}
	copies := make([]byte, 0, size)
	for unit, state := range l.states {
		copies = append(copies, state...)
		inv.States[unit] = copies[len(copies)-len(state) : len(copies) : len(copies)]
	}
	for _, c := range l.runs {
		child := *c
		child.Pending = slices.Clone(c.Pending)
		inv.Children = append(inv.Children, child)
	}
	slices.SortFunc(inv.Children, func(a, b Child) int {
		return cmp.Or(cmp.Compare(a.ID.Unit, b.ID.Unit), cmp.Compare(a.ID.Instance, b.ID.Instance), cmp.Compare(a.ID.Gen, b.ID.Gen))
	})
	return inv, nil
}

// Events implements Keeper.
func (l *Ledger) Events() <-chan Event { return l.events }

// Acknowledge implements Keeper.
func (l *Ledger) Acknowledge(ev Event) error {
	l.strike(ev)
	return nil
}

// strike is Acknowledge, and says whether the run has been struck off the list.
func (l *Ledger) strike(ev Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.runs[ev.ID]
	if c == nil {
		return false
	}
	had := len(c.Pending)
	c.Pending = slices.DeleteFunc(c.Pending, func(p Event) bool { return p.Kind == ev.Kind })
	if len(c.Pending) == had || ev.Kind == Execed {
		return false
	}
	delete(l.runs, ev.ID)
	return true
}

// Close implements Keeper for what the ledger holds.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	close(l.done)
	l.more.Broadcast()
	for name := range maps.Clone(l.held) {
		l.drop(l.held[name])
		delete(l.held, name)
	}
	l.queue = nil
	return nil
}

// List puts a new run on the list, and lends it the sockets it is to be started
// with: they stay open until giveBack is called, once, whatever becomes of their
// names meanwhile. It is an error if the run is listed or a socket is not held.
func (l *Ledger) List(id ID, sockets []string) (fds []int, giveBack func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, nil, ErrClosed
	}
	if l.runs[id] != nil {
		return nil, nil, fmt.Errorf("%s: is listed already", id)
	}
	lent := make([]*descriptor, len(sockets))
	fds = make([]int, len(sockets))
	for i, name := range sockets {
		d := l.held[name]
		if d == nil {
			return nil, nil, fmt.Errorf("%s: no descriptor is held as %s", id, name)
		}
		lent[i], fds[i] = d, d.fd
	}
	for _, d := range lent {
		d.users++
	}
	l.runs[id] = &Child{ID: id}
	return fds, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, d := range lent {
			l.drop(d)
		}
	}, nil
}

// Born notes the pid of a listed run.
func (l *Ledger) Born(id ID, pid int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.runs[id]; c != nil {
		c.Pid = pid
	}
}

// Signalled notes the last signal sent to a run. It is false if the run is not
// listed or has ended.
func (l *Ledger) Signalled(id ID, sig unix.Signal) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.runs[id]
	if c == nil || c.ended() {
		return false
	}
	c.Last = sig
	return true
}

func (c *Child) ended() bool {
	return slices.ContainsFunc(c.Pending, func(ev Event) bool { return ev.Kind != Execed })
}

// Post makes ev known: it stays pending, and is delivered once through Events.
func (l *Ledger) Post(ev Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.runs[ev.ID]
	if l.closed || c == nil {
		return
	}
	c.Running = ev.Kind == Execed
	if ev.Kind == Execed {
		c.Pid = ev.Pid
	}
	c.Pending = append(c.Pending, ev)
	if len(l.queue) > 64+4*len(l.runs) { // news that was acknowledged before anybody took it
		l.queue = slices.DeleteFunc(l.queue, func(ev Event) bool { return !l.pending(ev) })
	}
	if len(l.queue) == 0 && !l.moving {
		select {
		case l.events <- ev: // somebody waits for it: the shortest way there is
			return
		default:
		}
	}
	l.queue = append(l.queue, ev)
	l.more.Signal()
}

func (l *Ledger) pending(ev Event) bool {
	c := l.runs[ev.ID]
	return c != nil && slices.ContainsFunc(c.Pending, func(p Event) bool { return p.Kind == ev.Kind })
}

// deliver moves news from the queue to the channel, so that nobody who posts has
// to wait for one who reads. It ends with Close.
func (l *Ledger) deliver() {
	for {
		l.mu.Lock()
		l.moving = false
		for len(l.queue) == 0 && !l.closed {
			l.more.Wait()
		}
		if l.closed {
			l.mu.Unlock()
			return
		}
		ev := l.queue[0]
		if l.queue = l.queue[1:]; len(l.queue) == 0 {
			l.queue = nil // lets go of what has been delivered
		}
		l.moving = l.pending(ev)
		l.mu.Unlock()
		if !l.moving {
			continue
		}
		select {
		case l.events <- ev:
		case <-l.done:
			return
		}
	}
}
