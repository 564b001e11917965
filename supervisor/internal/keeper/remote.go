package keeper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// A Remote is a Keeper in another process, at the other end of a socketpair.
type Remote struct {
	mu     sync.Mutex // of writing, and of names
	wire   *wire
	names  map[string]int // what is held, and our own descriptor of it
	listed map[ID]bool    // runs
	events chan Event
	orders chan unix.Signal
	answer chan error     // of settle, main and adopt
	pieces chan Inventory // of inventory
	gone   chan struct{}  // closed when the keeper has gone
	queue  eventQueue

	upgrade outcomes

	batch     batch
	corked    bool   // what is asked waits for the next Spawn, or for Uncork
	gathering bool   // what is written waits for the next Acknowledge
	gathered  []byte // and is this

	welcome chan struct{} // closed when the keeper has answered
	err     error         // why it has gone
}

// ErrGone means that the keeper's process has ended.
var ErrGone = errors.New("the keeper has gone")

// Dial speaks to the keeper at the other end of fd, which becomes the Remote's.
func Dial(fd int) (*Remote, error) {
	w, err := newWire(fd)
	if err != nil {
		return nil, err
	}
	r := &Remote{wire: w, names: map[string]int{}, listed: map[ID]bool{}, events: make(chan Event, newsAhead), orders: make(chan unix.Signal, 16),
		answer: make(chan error, 1), pieces: make(chan Inventory, 1), gone: make(chan struct{}), welcome: make(chan struct{})}
	r.queue.init()
	if err := r.tell(opHello, nil, nil); err != nil {
		return nil, fmt.Errorf("hello: %w", err)
	}
	go r.read()
	go r.queue.deliver(r.events, r.gone)
	select { // news may come first
	case <-r.welcome:
	case <-r.gone:
		return nil, fmt.Errorf("hello: %w", r.err)
	}
	return r, nil
}

// Orders are the signals that the keeper was sent and passes on.
func (r *Remote) Orders() <-chan unix.Signal { return r.orders }

// Gone is closed when the keeper has ended: nothing can be kept any more.
func (r *Remote) Gone() <-chan struct{} { return r.gone }

func (r *Remote) tell(o op, fds []int, pack func(*packer)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tellLocked(o, fds, pack)
}

// ask tells what is going to be answered.
func (r *Remote) ask(o op, pack func(*packer)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.tellLocked(o, nil, pack); err != nil {
		return err
	}
	return r.flush()
}

func (r *Remote) tellLocked(o op, fds []int, pack func(*packer)) error {
	if r.names == nil {
		return ErrClosed
	}
	var p packer
	if pack != nil {
		pack(&p)
	}
	m := message{op: o, body: p.b, fds: fds}
	if !r.batch.fits(m) {
		if err := r.flush(); err != nil {
			return err
		}
	}
	if r.corked && o.waits() && r.batch.fits(m) {
		r.batch.add(m)
		return nil
	}
	if r.batch.empty() {
		return r.wire.write(m)
	}
	r.batch.add(m)
	return r.flush()
}

// Hold implements Keeper.
func (r *Remote) Hold(name string, fd int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	// The keeper's limit is ours. It would refuse too, but could say so only in Settle.
	if err := roomFor(fd); err != nil {
		return fmt.Errorf("hold %s: %w", name, err)
	}
	if err := r.tellLocked(opHold, []int{fd}, func(p *packer) { p.text(name) }); err != nil {
		return err
	}
	if old, ok := r.names[name]; ok && old != fd {
		if err := r.flush(); err != nil {
			return err
		}
		closeHeld(name, old)
	}
	r.names[name] = fd
	return nil
}

// Release implements Keeper.
func (r *Remote) Release(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if fd, ok := r.names[name]; ok {
		if len(r.batch.fds) > 0 { // it may be among them
			if err := r.flush(); err != nil {
				return err
			}
		}
		closeHeld(name, fd)
		delete(r.names, name)
	}
	return r.tellLocked(opRelease, nil, func(p *packer) { p.text(name) })
}

// Settle implements Keeper.
func (r *Remote) Settle() error {
	if err := r.ask(opSettle, nil); err != nil {
		return err
	}
	return r.answered()
}

// answered waits for the answer to what was asked last.
func (r *Remote) answered() error {
	select {
	case err := <-r.answer:
		return err
	case <-r.gone:
		return ErrGone
	}
}

// Spawn implements Keeper.
func (r *Remote) Spawn(id ID, pr Process) error {
	var fds []int
	if pr.Output >= 0 {
		fds = []int{pr.Output}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(pr.Argv) == 0 {
		return fmt.Errorf("%s: no program", id)
	}
	if r.listed[id] {
		return fmt.Errorf("%s: is listed already", id)
	}
	for _, name := range pr.Sockets {
		if _, ok := r.names[name]; !ok {
			return fmt.Errorf("%s: no descriptor is held as %s", id, name)
		}
	}
	err := r.tellLocked(opSpawn, fds, func(p *packer) { p.id(id); p.process(pr) })
	if err == nil {
		err = r.flush() // the output is the caller's to close
	}
	if err != nil {
		return err
	}
	r.listed[id] = true
	return nil
}

// Signal implements Keeper.
func (r *Remote) Signal(id ID, sig unix.Signal) error {
	return r.tell(opSignal, nil, func(p *packer) { p.id(id); p.number(int(sig)) })
}

// SetMain implements Keeper.
func (r *Remote) SetMain(id ID, pid int) error {
	if err := r.ask(opMain, func(p *packer) { p.id(id); p.number(pid) }); err != nil {
		return err
	}
	return r.answered()
}

// Adopt implements Keeper.
func (r *Remote) Adopt(s Survivor) error {
	text, err := json.Marshal(s)
	if err == nil {
		err = r.ask(opAdopt, func(p *packer) { p.bytes(text) })
	}
	if err != nil {
		return err
	}
	return r.answered()
}

// Save implements Keeper.
func (r *Remote) Save(unit string, state []byte) error {
	return r.tell(opSave, nil, func(p *packer) { p.text(unit); p.flag(state != nil); p.bytes(state) })
}

// Gather keeps what is written from now on until the next Acknowledge, and the keeper
// writes it when it takes that to account: once, or, if we die before, not at all.
func (r *Remote) Gather() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gathering = true
}

// Scatter ends that if nothing was acknowledged: the keeper writes it now.
func (r *Remote) Scatter() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if lines := r.gathered; len(lines) > 0 {
		r.tellLocked(opWrite, nil, func(p *packer) { p.bytes(lines) })
	}
	r.gathered, r.gathering = nil, false
}

// Write has the keeper write lines to sockd's own log. They are not lost if we die.
func (r *Remote) Write(lines []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gathering {
		r.gathered = append(r.gathered, lines...)
		return len(lines), nil
	}
	return len(lines), r.tellLocked(opWrite, nil, func(p *packer) { p.bytes(lines) })
}

// Acknowledge implements Keeper.
func (r *Remote) Acknowledge(ev Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ev.Kind != Execed {
		delete(r.listed, ev.ID)
	}
	lines := r.gathered
	r.gathered, r.gathering = nil, false
	return r.tellLocked(opAcknowledge, nil, func(p *packer) { p.event(ev); p.bytes(lines) })
}

// Outer has the keeper speak to the manager that started it.
func (r *Remote) Outer(text string) error {
	return r.tell(opOuter, nil, func(p *packer) { p.text(text) })
}

// Again has the keeper start an ordinary supervisor after this one, which is in safe mode.
func (r *Remote) Again() error { return r.tell(opAgain, nil, nil) }

// Bye tells the keeper to end too, with that exit code.
func (r *Remote) Bye(code int) error {
	return r.tell(opBye, nil, func(p *packer) { p.number(code) })
}

// Events implements Keeper.
func (r *Remote) Events() <-chan Event { return r.events }

// Close ends the talk and closes our descriptors. The keeper goes on with its own.
func (r *Remote) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names == nil {
		return nil
	}
	r.flush()
	for name, fd := range r.names {
		closeHeld(name, fd)
	}
	r.names = nil
	return r.wire.close()
}

// read takes what the keeper says until it has gone.
func (r *Remote) read() {
	defer close(r.gone)
	inv, welcome := newInventory(), false
	for {
		m, err := r.wire.read()
		if err != nil {
			r.err = err
			return
		}
		u := unpacker{b: m.body}
		switch m.op {
		case opWelcome:
			if !welcome {
				close(r.welcome)
			}
			welcome = true
		case opNews:
			if ev := u.event(); u.end() == nil {
				r.queue.put(ev, r.events)
			}
		case opHeld, opState, opChild:
			m.body = bytes.Clone(m.body)
			r.piece(&inv, m)
		case opBatch:
			m.body = bytes.Clone(m.body)
			m.each(func(m message) error { r.piece(&inv, m); return nil })
		case opComplete:
			r.pieces <- inv
			inv = newInventory()
		case opAnswer:
			var err error
			if text := u.text(); text != "" {
				err = errors.New(text)
			}
			r.answer <- err
		case opOutcome:
			if o := (Outcome{u.text(), u.text(), u.text()}); u.end() == nil {
				r.upgrade.set(o)
			}
		case opOrder:
			select {
			case r.orders <- unix.Signal(u.number()):
			default: // sixteen signals nobody has looked at yet
			}
		}
	}
}
