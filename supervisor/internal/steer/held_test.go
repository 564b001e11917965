package steer

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crash ends a group's supervisor: its descriptors are gone, except those that a
// keeper holds, which are returned. The program stays attached.
func crash(t *testing.T, g Group) (held map[string]int) {
	t.Helper()
	held = make(map[string]int)
	for name, fd := range g.Held() {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		must(t, err)
		held[name] = dup
	}
	switch e := g.(*steering).engine.(type) {
	case *mapped:
		e.free()
	case *classic:
		must(t, e.memory.close())
	}
	g.(*steering).closed = true
	return held
}

// drop is what becomes of descriptors that nobody keeps.
func drop(t *testing.T, held map[string]int) {
	t.Helper()
	for _, fd := range held {
		must(t, unix.Close(fd))
	}
}

// each gives every place all connections in turn, which shows that every one is known
// by its number.
func each(t *testing.T, w *kernelWorld) {
	t.Helper()
	for only := range w.fds {
		weights := make([]int, len(w.fds))
		weights[only] = 1
		must(t, w.g.Set(weights))
		fits(t, crowd(w, 40), weights...)
	}
}

// A successor finds the group as it was left, whatever the kernel's order has become.
func TestSuccessorTakesOver(t *testing.T) {
	for _, level := range []Level{EBPF, ClassicBPF} {
		t.Run(level.String(), func(t *testing.T) {
			w := newKernelWorld(t, "tcp4", 4, level, true, Options{})
			for _, place := range []int{2, 0, 1} {
				weights := []int{1, 1, 1, 1}
				weights[place] = 0
				must(t, w.g.Set(weights))
				must(t, w.g.Flush(place))
			}
			must(t, w.g.Set([]int{1, 0, 2, 1}))
			before := crowd(w, 500)
			held := crash(t, w.g)
			fits(t, crowd(w, 500), 1, 0, 2, 1) // nobody is there, and steering goes on

			var err error
			w.g, err = Open(w.fds, level, Options{Held: held})
			must(t, err)
			drop(t, held) // the group has its own
			if level == EBPF {
				need(t, w.g, EBPF)
				c, _ := w.g.Counts()
				if c.Steered[2] < uint64(before[2]) {
					t.Errorf("place 2: %d counted, %d and more were served", c.Steered[2], before[2])
				}
			}
			fits(t, crowd(w, 1000), 1, 0, 2, 1)
			must(t, w.g.Flush(1)) // it knows who has a weight
			each(t, w)
			must(t, w.g.Set([]int{1, 1, 0, 1}))
			must(t, w.g.Flush(2))
			each(t, w)
		})
	}
}

// A place that is no more, when a successor comes, has no share any more. At level
// ClassicBPF the kernel's order is then unknown, and nobody is steered by a guess.
func TestSuccessorOfFewer(t *testing.T) {
	for _, level := range []Level{EBPF, ClassicBPF} {
		t.Run(level.String(), func(t *testing.T) {
			w := newKernelWorld(t, "tcp4", 4, level, true, Options{})
			must(t, w.g.Set([]int{1, 1, 2, 0}))
			held := crash(t, w.g)
			fds := append([]int(nil), w.fds...)
			fds[0] = -1
			var err error
			w.g, err = Open(fds, level, Options{Held: held})
			must(t, err)
			drop(t, held)
			if level == ClassicBPF {
				if w.g.Level() != Hash || !strings.Contains(w.g.Why(), "not among the sockets") {
					t.Errorf("level %s, because %q", w.g.Level(), w.g.Why())
				}
				return
			}
			fits(t, crowd(w, 900), 0, 1, 2, 0)
			must(t, w.g.Set([]int{0, 1, 1, 1}))
			fits(t, crowd(w, 900), 0, 1, 1, 1)
		})
	}
}

// Where nothing was held the group is opened afresh, though the old program has its
// sockets in a map that nobody can reach.
func TestSuccessorWithEmptyHands(t *testing.T) {
	w := newKernelWorld(t, "tcp4", 4, EBPF, false, Options{})
	must(t, w.g.Set([]int{1, 0, 1, 1}))
	drop(t, crash(t, w.g))
	for name, held := range map[string]map[string]int{
		"nothing":    nil,
		"half of it": {"table": w.fds[0]},
		"nonsense":   {"table": 0, "sockets": 1, "counts": w.fds[0]},
	} {
		var err error
		w.g, err = Open(w.fds, EBPF, Options{Held: held, Until: time.Now().Add(10 * time.Second)})
		must(t, err)
		if w.g.Level() != EBPF {
			t.Fatalf("held %s: level %s: %s", name, w.g.Level(), w.g.Why())
		}
		fits(t, crowd(w, 1000), 1, 1, 1, 1)
		each(t, w)
		drop(t, crash(t, w.g))
	}
}

// A group whose sockets are still another's is opened at the next level at once: nobody is
// to wait for each of many sockets. When they have been let go the best can be had.
func TestSocketsOfAnotherGroup(t *testing.T) {
	w := newKernelWorld(t, "tcp4", 64, EBPF, false, Options{})
	if !Busy(w.fds[63:]) {
		t.Error("a socket of an open group is not busy")
	}
	late, err := Open(w.fds, Best, Options{})
	must(t, err)
	if late.Level() == EBPF || !strings.Contains(late.Why(), "busy") {
		t.Errorf("level %s, because %q", late.Level(), late.Why())
	}
	must(t, late.Close())
	must(t, w.g.Close())
	if Busy(w.fds) {
		t.Fatal("after its group was closed a socket is busy")
	}
	w.g, err = Open(w.fds, Best, Options{})
	must(t, err)
	need(t, w.g, EBPF)
}

// Steering that nobody knows any more does not go on behind the back of level Hash.
func TestHashEndsOldSteering(t *testing.T) {
	for _, level := range []Level{EBPF, ClassicBPF} {
		t.Run(level.String(), func(t *testing.T) {
			w := newKernelWorld(t, "tcp4", 3, level, false, Options{})
			must(t, w.g.Set([]int{1, 0, 0}))
			drop(t, crash(t, w.g))
			fits(t, crowd(w, 100), 1, 0, 0)
			var err error
			w.g, err = Open(w.fds, Hash, Options{})
			must(t, err)
			fits(t, crowd(w, 1000), 1, 1, 1)
		})
	}
}

// The supervisor dies at every step of a Flush. The memory and the sockets together
// tell its successor the kernel's order.
func TestCrashWithinAFlush(t *testing.T) {
	const place = 1
	steps := []struct {
		name string
		do   func(g *steering, fd int) error
	}{
		{"told", func(g *steering, fd int) error { return g.engine.leaving(place, fd) }},
		{"shut down", func(g *steering, fd int) error { return g.wire.shutdown(fd, true) }},
		{"noted", func(g *steering, fd int) error { return g.engine.left(place, fd) }},
		{"listens", func(g *steering, fd int) error { return g.wire.listen(fd, 4096) }},
		{"noted again", func(g *steering, fd int) error { return g.engine.entered(place, fd) }},
	}
	for _, level := range []Level{EBPF, ClassicBPF} {
		for last := range steps {
			t.Run(fmt.Sprintf("%s %s", level, steps[last].name), func(t *testing.T) {
				w := newKernelWorld(t, "tcp4", 4, level, true, Options{})
				must(t, w.g.Set([]int{1, 0, 1, 1}))
				for _, step := range steps[:last+1] {
					must(t, step.do(w.g.(*steering), w.fds[place]))
				}
				held := crash(t, w.g)
				var err error
				w.g, err = Open(w.fds, level, Options{Held: held})
				must(t, err)
				drop(t, held)
				if w.g.Level() != level {
					t.Fatalf("level %s: %s", w.g.Level(), w.g.Why())
				}
				if !w.listening(place) {
					t.Error("the place does not listen")
				}
				fits(t, crowd(w, 300), 1, 0, 1, 1)
				each(t, w)
			})
		}
	}
}

// A service calls shutdown on its listener; sockd listens again and says so.
func TestShutDownByAService(t *testing.T) {
	for _, level := range []Level{EBPF, ClassicBPF, Hash} {
		t.Run(level.String(), func(t *testing.T) {
			w := newKernelWorld(t, "tcp4", 4, level, false, Options{})
			must(t, w.g.Set([]int{1, 1, 1, 1}))
			must(t, unix.Shutdown(w.fds[0], unix.SHUT_RD))
			got := crowd(w, 400) // goes elsewhere meanwhile
			if got[0] != 0 {
				t.Errorf("served %v: place 0 does not listen", got)
			}
			must(t, kernel{}.listen(w.fds[0], 4096))
			must(t, w.g.Join(0, w.fds[0]))
			fits(t, crowd(w, 1000), 1, 1, 1, 1)
			if level != Hash {
				each(t, w)
			}
		})
	}
}

// While a place with a weight has no socket, its connections go to places with a
// weight: not to all, as the kernel's hash would have it.
func TestOtherSlotsAreProbed(t *testing.T) {
	w := newKernelWorld(t, "tcp4", 5, EBPF, false, Options{})
	must(t, w.g.Set([]int{1, 3, 3, 3, 0}))
	must(t, unix.Shutdown(w.fds[0], unix.SHUT_RD))
	got := crowd(w, 1000)
	c, _ := w.g.Counts()
	if c.Hashed > 5 || got[4] > 5 { // four slots in a row are wrong once in 10,000
		t.Errorf("served %v, %d by the hash; about 100 were meant for place 0", got, c.Hashed)
	}
}

// What a service can do to the group's program with the socket it was given.
func TestLock(t *testing.T) {
	w := newKernelWorld(t, "tcp4", 3, EBPF, false, Options{})
	must(t, w.g.Set([]int{1, 0, 1}))
	hijack := []unix.SockFilter{stmt(unix.BPF_RET|unix.BPF_K, 1)}
	replace := func() error {
		return unix.SetsockoptSockFprog(w.fds[0], unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
			&unix.SockFprog{Len: 1, Filter: &hijack[0]})
	}
	for _, fd := range w.fds {
		must(t, Lock(fd))
	}
	if err := replace(); !errors.Is(err, unix.EPERM) {
		t.Errorf("replacing the program through a locked socket: %v, want EPERM", err)
	}
	fits(t, crowd(w, 500), 1, 0, 1)
	must(t, w.g.Flush(1))
	each(t, w)
	must(t, w.g.Leave(2))
	must(t, w.join(2))
	must(t, w.g.Set([]int{1, 0, 3}))
	fits(t, crowd(w, 500), 1, 0, 3)

	// The kernel does not guard against removal. The next to join repairs it.
	must(t, detach(w.fds[0]))
	must(t, w.join(3))
	fits(t, crowd(w, 500), 1, 0, 3, 0)
}

// A group that loses its program, with nothing but locked sockets, gets it back: when
// its listeners come back, and when it is opened again.
func TestLockedGroupGetsItsProgramBack(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6", "tcp"} {
		t.Run(network, func(t *testing.T) {
			w := newKernelWorld(t, network, 2, EBPF, false, Options{})
			must(t, w.g.Set([]int{1, 3}))
			for _, fd := range w.fds {
				must(t, Lock(fd))
				must(t, unix.Shutdown(fd, unix.SHUT_RD))
			}
			for place, fd := range w.fds {
				must(t, kernel{}.listen(fd, 4096))
				must(t, w.g.Join(place, fd))
			}
			each(t, w)

			for name, end := range map[string]func() map[string]int{
				"closed":          func() map[string]int { must(t, w.g.Close()); return nil },
				"nothing is held": func() map[string]int { drop(t, crash(t, w.g)); return nil },
				"removed": func() map[string]int {
					held := crash(t, w.g)
					must(t, detach(w.fds[0]))
					return held
				},
			} {
				held := end()
				var err error
				w.g, err = Open(w.fds, EBPF, Options{Held: held, Until: time.Now().Add(10 * time.Second)})
				must(t, err)
				drop(t, held)
				if w.g.Level() != EBPF {
					t.Fatalf("%s: level %s: %s", name, w.g.Level(), w.g.Why())
				}
				each(t, w)
			}
		})
	}
}
