package keeper

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// The requests of a supervisor, one by one. Each is read to its end before anything is done.

func (s *session) greet() error {
	s.hello.Store(true)
	s.heard()
	return s.say(opWelcome, nil, nil)
}

func (s *session) release(u *unpacker) error {
	name := u.text()
	if err := u.end(); err != nil {
		return err
	}
	delete(s.refused, name)
	return s.local.Release(name)
}

func (s *session) signal(u *unpacker) error {
	id, sig := u.id(), unix.Signal(u.number())
	if err := u.end(); err != nil {
		return err
	}
	if err := s.local.Signal(id, sig); err != nil {
		s.log.Warn("not done: signal", slog.String("run", id.String()), slog.Any("err", err))
	}
	return nil
}

func (s *session) setMain(u *unpacker) error {
	id, pid := u.id(), u.number()
	if err := u.end(); err != nil {
		return err
	}
	return s.answer(s.local.SetMain(id, pid))
}

func (s *session) adopt(u *unpacker) error {
	var sv Survivor
	bad := json.Unmarshal(u.bytes(), &sv)
	if err := u.end(); err != nil || bad != nil {
		return errWire
	}
	return s.answer(s.local.Adopt(sv))
}

func (s *session) save(u *unpacker) error {
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
}

func (s *session) acknowledge(u *unpacker) error {
	ev, lines := u.event(), u.bytes()
	if err := u.end(); err != nil {
		return err
	}
	s.heard()
	s.local.write(lines)
	return s.local.Acknowledge(ev)
}

func (s *session) write(u *unpacker) error {
	lines := u.bytes()
	if err := u.end(); err != nil {
		return err
	}
	s.local.write(lines)
	return nil
}

func (s *session) tellOuter(u *unpacker) error {
	text := u.text()
	if err := u.end(); err != nil {
		return err
	}
	if s.outer != nil {
		s.outer(text)
	}
	return nil
}

func (s *session) farewell(u *unpacker) error {
	code := u.number()
	if err := u.end(); err != nil {
		return err
	}
	s.bye.Store(saidBye | int64(code&0xff))
	return nil
}

func (s *session) upgrade(u *unpacker, file int) error {
	id := u.text()
	if err := u.end(); err != nil {
		unix.Close(file)
		return err
	}
	select {
	case s.handed <- &trial{id: id, file: file}:
	default: // it has said so already
		unix.Close(file)
	}
	return nil
}

// serves reads nothing more until the guard has seen to it that the supervisor serves.
func (s *session) serves() {
	goOn := make(chan struct{})
	select {
	case s.serving <- goOn:
		<-goOn
	case <-s.over:
	}
}

// reserve is how many descriptors must stay free after a new one is held: those of
// the runs that are under way, and of the next supervisor.
const reserve = 64

// roomFor says whether a descriptor may be held, and others still be opened after it.
func roomFor(fd int) error {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	if fd != noRoom && (err != nil || uint64(fd)+reserve <= limit.Cur || sys.FreeBeside(fd, int(limit.Cur)) >= reserve) {
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
	err := s.room()
	if err == nil {
		err = s.local.Spawn(id, p)
	}
	if err != nil {
		s.local.refuse(id, err)
	}
	return nil
}

// room says whether a run may be started, and the reserve be left: it has a descriptor of
// its process as long as it runs, until then of its output, and others on the way.
func (s *session) room() error {
	next := sys.High(s.wire.duplicate())
	defer closeIf(next)
	return roomFor(next)
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
