package keeper_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// A steady keeper is one that hears what it hears all day long.
type steady struct {
	session *keeper.FuzzSession
	fd      int // the supervisor's end
}

func newSteady(t testing.TB) *steady {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pair[1]) })
	s, err := keeper.NewFuzzSession(newLocal(t, keeper.Options{}), pair[0])
	if err != nil {
		t.Fatal(err)
	}
	return &steady{s, pair[1]}
}

// hear has it take one request.
func (s *steady) hear(t testing.TB, frame []byte) {
	if _, err := unix.Write(s.fd, frame); err != nil {
		t.Fatal(err)
	}
	if err := s.session.Take(); err != nil {
		t.Fatal(err)
	}
}

// What a keeper hears all day long: states of about the same size, and what has been
// acknowledged.
var daily = map[string][]byte{
	"save":        keeper.SaveFrame("web", make([]byte, 1000)),
	"acknowledge": keeper.AcknowledgeFrame(keeper.Event{ID: keeper.ID{Unit: "web", Instance: 1, Gen: 7}, Kind: keeper.Execed, Pid: 4711}),
}

func TestSteadyKeeperMakesNoGarbage(t *testing.T) {
	for name, frame := range daily {
		s := newSteady(t)
		s.hear(t, frame)
		if n := testing.AllocsPerRun(1000, func() { s.hear(t, frame) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkSteadyKeeper(b *testing.B) {
	for name, frame := range daily {
		b.Run(name, func(b *testing.B) {
			s := newSteady(b)
			s.hear(b, frame)
			b.ReportAllocs()
			for b.Loop() {
				s.hear(b, frame)
			}
		})
	}
}
