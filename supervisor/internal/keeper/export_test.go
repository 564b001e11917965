package keeper

import (
	"log/slog"
	"testing"

	"golang.org/x/sys/unix"
)

// Reserve is how many descriptors the keeper keeps free.
const Reserve = reserve

// Served is a Remote that speaks with l over a socketpair, as a supervisor does
// with the keeper's process.
func Served(t testing.TB, l *Local) *Remote {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWire(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	s := talk(l, w, slog.New(slog.DiscardHandler), nil)
	go func() {
		for {
			select {
			case ev := <-l.Events():
				if s.news(ev); <-s.sent != nil {
					return
				}
			case <-s.acked:
			case <-s.ended:
				w.close()
				return
			}
		}
	}()
	r, err := Dial(pair[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); <-s.ended })
	return r
}

// A FuzzSession takes what a supervisor may say, in one process.
type FuzzSession struct{ s *session }

// NewFuzzSession has greeted already; what it says goes nowhere.
func NewFuzzSession(l *Local, fd int) (*FuzzSession, error) {
	w, err := newWire(fd)
	if err != nil {
		return nil, err
	}
	f := &FuzzSession{newSession(l, w, slog.New(slog.DiscardHandler), nil)}
	f.s.hello.Store(true)
	close(f.s.over) // nobody attends to it
	return f, nil
}

// Handle is one message of the supervisor's.
func (f *FuzzSession) Handle(o byte, body []byte, fds []int) error {
	err := f.s.handle(message{op: op(o), body: body, fds: fds})
	select {
	case t := <-f.s.handed:
		closeAll([]int{t.file})
	default:
	}
	return err
}
