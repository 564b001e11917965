package steer

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestJoinAndLeave(t *testing.T) {
	everywhere(t, 2, func(t *testing.T, s setting, w world) {
		g := w.group()
		must(t, g.Set([]int{1, 1}))
		must(t, w.join(2))
		must(t, w.join(4)) // place 3 stays empty
		if s.steers {
			fits(t, crowd(w, 500), 1, 1, 0, 0, 0)
		}
		if err := g.Set([]int{1, 1, 1, 1, 1}); !errors.Is(err, ErrNoPlace) {
			t.Errorf("a weight for an empty place: %v, want ErrNoPlace", err)
		}
		fits(t, crowd(w, 1000), 1, 1, 1, 0, 1) // what could be done was
		must(t, g.Set([]int{1, 1, 1, 0, 1}))
		fits(t, crowd(w, 1000), 1, 1, 1, 0, 1)

		w.connect(200)
		err := g.Leave(0)
		if !s.migrates {
			if !errors.Is(err, ErrNoMigration) {
				t.Errorf("Leave with a queue: %v, want ErrNoMigration", err)
			}
			w.serve(200)
			fits(t, crowd(w, 1000), 1, 1, 1, 0, 1)
			err = g.Leave(0)
		}
		must(t, err)
		if w.listening(0) {
			t.Error("place 0 still listens")
		}
		if s.migrates {
			if got := w.serve(200); got[0] != 0 {
				t.Errorf("place 0 served %d after it had left", got[0])
			}
		}
		fits(t, crowd(w, 1000), 0, 1, 1, 0, 1)
		must(t, w.join(0))
		must(t, g.Set([]int{1, 1, 1, 0, 1}))
		fits(t, crowd(w, 1000), 1, 1, 1, 0, 1)
		must(t, w.join(1)) // another socket for place 1
		fits(t, crowd(w, 1000), 1, 1, 1, 0, 1)
		for _, place := range []int{0, 1, 2, 4} {
			must(t, g.Leave(place))
		}
		if err := g.Leave(0); !errors.Is(err, ErrNoPlace) {
			t.Errorf("Leave twice: %v, want ErrNoPlace", err)
		}
	})
}

// A socket that does not belong is refused, and says what it is.
func TestSocketsThatDoNotBelong(t *testing.T) {
	namespace(t)
	tcp, udp := addressOf("tcp4"), addressOf("udp4")
	a, b := tcp.socket(t), tcp.socket(t)
	other, datagram := addressOf("tcp4").socket(t), udp.socket(t)
	plain, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(plain)
	deaf := tcp.socket(t)
	must(t, unix.Shutdown(deaf, unix.SHUT_RD))
	for _, test := range []struct {
		name string
		fds  []int
		want string
	}{
		{"none", nil, "0 sockets are not in 1..1024"},
		{"only empty places", []int{-1, -1}, "no socket"},
		{"another address", []int{a, other}, "the first is tcp 127.0.0.1:"},
		{"another kind", []int{a, datagram}, "place 1 is udp 127.0.0.1:"},
		{"not for groups", []int{plain}, "no SO_REUSEPORT"},
		{"not a socket", []int{0}, "descriptor 0: socket operation on non-socket"},
	} {
		if _, err := Open(test.fds, Best, Options{}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Open, %s: %v, want %q", test.name, err, test.want)
		}
	}
	for _, level := range []Level{EBPF, ClassicBPF, Hash} {
		g, err := Open([]int{a, b}, level, Options{})
		must(t, err)
		for name, fd := range map[string]int{"other": other, "datagram": datagram, "plain": plain, "deaf": deaf} {
			if err := g.Join(2, fd); err == nil {
				t.Errorf("Join at level %s of %s is accepted", g.Level(), name)
			}
		}
		if err := g.Join(MaxPlaces, b); !errors.Is(err, ErrNoPlace) {
			t.Errorf("Join of place %d: %v, want ErrNoPlace", MaxPlaces, err)
		}
		must(t, g.Set([]int{1, 1}))
		must(t, g.Close())
	}
}
