package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys"
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
	u := unpacker{b: m.body, seen: s.names}
	want := 0
	if m.op == opHold || m.op == opUpgrade {
		want = 1
	}
	if m.op == opSpawn && len(m.fds) == 1 {
		want = 1
	}
	if len(m.fds) != want {
		closeAll(m.fds)
		return errWire
	}
	if !s.hello.Load() && m.op != opHello {
		closeAll(m.fds)
		return errWire
	}
	switch m.op {
	case opHello:
		s.hello.Store(true)
		s.heard()
		return s.say(opWelcome, nil, nil)
	case opInventory:
		return s.inventory(u.flag())
	case opHold:
		return s.hold(&u, m.fds[0])
	case opRelease:
		name := u.text()
		if err := u.end(); err != nil {
			return err
		}
		delete(s.refused, name)
		return s.local.Release(name)
	case opSettle:
		return s.answer(s.settle())
	case opSpawn:
		return s.spawn(&u, m.fds)
	case opSignal:
		id, sig := u.id(), unix.Signal(u.number())
		if err := u.end(); err != nil {
			return err
		}
		s.note("signal", id, s.local.Signal(id, sig))
	case opMain:
		id, pid := u.id(), u.number()
		if err := u.end(); err != nil {
			return err
		}
		return s.answer(s.local.SetMain(id, pid))
	case opAdopt:
		var sv Survivor
		bad := json.Unmarshal(u.bytes(), &sv)
		if err := u.end(); err != nil || bad != nil {
			return errWire
		}
		return s.answer(s.local.Adopt(sv))
	case opSave:
		unit, set, state := u.name(), u.flag(), u.bytes()
		if err := u.end(); err != nil {
			return err
		}
		if !set {
			state = nil
		} else if state == nil {
			state = []byte{}
		}
		return s.local.Save(unit, state)
	case opAcknowledge:
		ev, lines := u.event(), u.bytes()
		if err := u.end(); err != nil {
			return err
		}
		s.heard()
		s.local.write(lines)
		return s.local.Acknowledge(ev)
	case opWrite:
		lines := u.bytes()
		if err := u.end(); err != nil {
			return err
		}
		s.local.write(lines)
	case opOuter:
		text := u.text()
		if err := u.end(); err != nil {
			return err
		}
		if s.outer != nil {
			s.outer(text)
		}
	case opBye:
		code := u.number()
		if err := u.end(); err != nil {
			return err
		}
		s.bye.Store(saidBye | int64(code&0xff))
	case opAgain:
		s.again.Store(true)
	case opUpgrade:
		id := u.text()
		if err := u.end(); err != nil {
			closeAll(m.fds)
			return err
		}
		select {
		case s.handed <- &trial{id: id, file: m.fds[0]}:
		default: // it has said so already
			closeAll(m.fds)
		}
	case opServing:
		goOn := make(chan struct{})
		select {
		case s.serving <- goOn:
			<-goOn
		case <-s.over:
		}
	default:
		return errWire
	}
	return nil
}

// heard tells the guard that the supervisor takes notice.
func (s *session) heard() {
	select {
	case s.acked <- struct{}{}:
	default:
	}
}

func (s *session) note(what string, id ID, err error) {
	if err != nil {
		s.log.Warn("not done: "+what, slog.String("run", id.String()), slog.Any("err", err))
	}
}

// reserve is how many descriptors must stay free after a new one is held: those of
// the runs that are under way, and of the next supervisor.
const reserve = 64

// roomFor says whether a descriptor may be held, and others still be opened after it.
func roomFor(fd int) error {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || uint64(fd)+reserve <= limit.Cur || sys.FreeBeside(fd, int(limit.Cur)) >= reserve {
		return nil
	}
	return fmt.Errorf("%w: of %d descriptors that sockd may have, %d are kept free; raise the limit (ulimit -n, LimitNOFILE=)", unix.EMFILE, limit.Cur, reserve)
}

func (s *session) hold(u *unpacker, fd int) error {
	name := u.text()
	if err := u.end(); err != nil {
		unix.Close(fd)
		return err
	}
	fd = sys.High(fd) // it stays: the low numbers are for those that starts need
	if err := roomFor(fd); err != nil {
		unix.Close(fd)
		s.log.Error("not held", slog.String("name", name), slog.Any("err", err))
		s.refused[name] = fmt.Errorf("hold %s: %w", name, err)
		return nil // settle will say so, or the start that would need it
	}
	delete(s.refused, name)
	if err := s.local.Hold(name, fd); err != nil {
		unix.Close(fd)
		return err
	}
	return nil
}

// settle says what was refused since it was asked last, and has not been released.
func (s *session) settle() error {
	names := slices.Sorted(maps.Keys(s.refused))
	if len(names) == 0 {
		return nil
	}
	err := s.refused[names[0]]
	if more := len(names) - 1; more > 0 {
		err = fmt.Errorf("%w (and %d more)", err, more)
	}
	clear(s.refused)
	return err
}

// answer says how a request went that is answered.
func (s *session) answer(err error) error {
	text := ""
	if err != nil {
		text = err.Error()
	}
	return s.say(opAnswer, nil, func(p *packer) { p.text(text) })
}

// spawn starts a run. One that cannot be started at all is news too: the
// supervisor does not wait for an answer.
func (s *session) spawn(u *unpacker, fds []int) error {
	defer closeAll(fds) // the run has a duplicate
	id, p := u.id(), u.process()
	if err := u.end(); err != nil {
		return err
	}
	if len(fds) == 1 {
		p.Output = fds[0]
	}
	if err := s.local.Spawn(id, p); err != nil {
		s.local.refuse(id, err)
	}
	return nil
}

// write writes what a supervisor logs.
func (l *Local) write(lines []byte) {
	if len(lines) > 0 {
		l.out.Write(lines)
	}
}

// refuse makes news of a spawn that did not begin. A run that is listed already
// goes on.
func (l *Local) refuse(id ID, err error) {
	if _, giveBack, listed := l.List(id, nil); listed == nil {
		giveBack()
		l.Post(Event{ID: id, Kind: SpawnFailed, Stage: "fork", Err: err.Error()})
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
