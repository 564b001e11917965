package keeper

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A session is the keeper's side of the talk with one supervisor. It takes every
// request there is, and survives whatever else it is told.
type session struct {
	local *Local
	log   *slog.Logger
	wire  *wire

	outer func(text string) // speaks to an outer manager; nil: there is none

	writing sync.Mutex
	busy    bool // the guard's letter is on its way
	ordered bool // which is an order
	sent    chan error
	hello   atomic.Bool
	bye     atomic.Int64     // exit code and 1<<32 once said
	names   words            // of units, as they came
	refused map[string]error // what could not be held, by name
	again   atomic.Bool      // it wants an ordinary one after it
	acked   chan struct{}    // it said hello, or acknowledged something
	ended   chan struct{}    // closed when the talk is over

	handed  chan *trial        // a file that is to take over
	serving chan chan struct{} // it serves; nothing more is read until that is closed
	over    chan struct{}      // closed when nobody attends to it any more
}

const saidBye = 1 << 32

// lastWords is how long what a supervisor said before its end is listened to; there
// is no more when it is through, unless somebody else has its end of the wire.
const lastWords = time.Second

// hearOut takes what a supervisor that has ended said before, and ends the talk.
func (s *session) hearOut() {
	close(s.over)
	timer := time.NewTimer(lastWords)
	defer timer.Stop()
	select {
	case <-s.ended:
	case <-timer.C:
	}
	s.wire.close()
	<-s.ended
}

// talk serves the supervisor at the other end of w until it goes.
func talk(l *Local, w *wire, log *slog.Logger, outer func(string)) *session {
	s := newSession(l, w, log, outer)
	go s.serve()
	return s
}

func newSession(l *Local, w *wire, log *slog.Logger, outer func(string)) *session {
	w.lenient = true // what there is no room for is refused, each by itself
	return &session{local: l, log: log, wire: w, outer: outer, names: words{}, refused: map[string]error{}, sent: make(chan error, 1), acked: make(chan struct{}, 1), ended: make(chan struct{}),
		handed: make(chan *trial, 1), serving: make(chan chan struct{}), over: make(chan struct{})}
}

func (s *session) serve() {
	defer close(s.ended)
	for {
		m, err := s.wire.read()
		if err != nil {
			if err != net.ErrClosed && !errors.Is(err, os.ErrClosed) {
				s.log.Error("supervisor not understood", slog.Any("err", err))
			}
			return
		}
		if err := s.handle(m); err != nil {
			s.log.Error("supervisor not understood", slog.Any("err", err))
			return
		}
	}
}

// handle does one request. The message's descriptors are closed unless held. An
// error means that the supervisor does not make sense.
func (s *session) handle(m message) error {
	if m.op == opBatch {
		return m.each(s.handle)
	}
	if !m.op.comesWith(len(m.fds)) || !s.hello.Load() && m.op != opHello {
		closeAll(m.fds)
		return errWire
	}
	u := unpacker{b: m.body, seen: s.names}
	switch m.op {
	case opHello:
		return s.greet()
	case opInventory:
		return s.inventory(u.flag())
	case opHold:
		return s.hold(&u, m.fds[0])
	case opRelease:
		return s.release(&u)
	case opSettle:
		return s.answer(s.settle())
	case opSpawn:
		return s.spawn(&u, m.fds)
	case opSignal:
		return s.signal(&u)
	case opMain:
		return s.setMain(&u)
	case opAdopt:
		return s.adopt(&u)
	case opSave:
		return s.save(&u)
	case opAcknowledge:
		return s.acknowledge(&u)
	case opWrite:
		return s.write(&u)
	case opOuter:
		return s.tellOuter(&u)
	case opBye:
		return s.farewell(&u)
	case opAgain:
		s.again.Store(true)
		return nil
	case opUpgrade:
		return s.upgrade(&u, m.fds[0])
	case opServing:
		s.serves()
		return nil
	}
	return errWire
}

// comesWith tells whether a request has that many descriptors.
func (o op) comesWith(fds int) bool {
	switch o {
	case opHold, opUpgrade:
		return fds == 1
	case opSpawn: // with its output, or without
		return fds <= 1
	}
	return fds == 0
}

// heard tells the guard that the supervisor takes notice.
func (s *session) heard() {
	select {
	case s.acked <- struct{}{}:
	default:
	}
}

// say sends a message, and waits while the supervisor does not read. Two goroutines
// do: the one that answers and the one that has the guard's letter.
func (s *session) say(o op, fds []int, pack func(*packer)) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	var p packer
	if pack != nil {
		pack(&p)
	}
	return s.wire.write(message{op: o, body: p.b, fds: fds})
}

// sayNow is say where that need not wait; else errWouldWait, and nothing has been said.
func (s *session) sayNow(o op, pack func(*packer)) error {
	if !s.writing.TryLock() {
		return errWouldWait
	}
	defer s.writing.Unlock()
	var p packer
	pack(&p)
	return s.wire.writeNow(message{op: o, body: p.b})
}
