package steer

import (
	"math/rand/v2"
	"testing"
)

// A fakeWorld is a story's world without a kernel.
type fakeWorld struct {
	t    testing.TB
	f    *Fake
	rand *rand.Rand
	fds  []int
}

func newFakeWorld(t testing.TB, level Level, n int, migrate bool) *fakeWorld {
	w := &fakeWorld{t: t, f: NewFakeAt(level, n, migrate), rand: rand.New(rand.NewPCG(1, 2))}
	for fd := range n {
		w.fds = append(w.fds, fd)
	}
	return w
}

func (w *fakeWorld) group() Group { return w.f }

func (w *fakeWorld) connect(n int) {
	for range n {
		w.f.Connect(w.rand.Uint32())
	}
}

func (w *fakeWorld) halfOpen(n int) func() {
	var all []func() int
	for range n {
		all = append(all, w.f.Handshake(w.rand.Uint32()))
	}
	return func() {
		for _, finish := range all {
			finish()
		}
	}
}

func (w *fakeWorld) serve(want int) []int {
	w.t.Helper()
	by := make([]int, len(w.fds))
	for place, fd := range w.fds {
		for fd >= 0 && w.f.Accept(fd) {
			by[place]++
			want--
		}
	}
	if want != 0 {
		w.t.Errorf("%d clients too few (served by place: %v)", want, by)
	}
	return by
}

func (w *fakeWorld) lost() int { return w.f.Resets() }

func (w *fakeWorld) waiting(place int) int {
	_, n, _, _ := w.f.net.look(w.fds[place])
	return n
}

func (w *fakeWorld) listening(place int) bool { return w.f.Listening(w.fds[place]) }

func (w *fakeWorld) join(place int) error {
	fd := w.f.Listen()
	for len(w.fds) <= place {
		w.fds = append(w.fds, -1)
	}
	w.fds[place] = fd
	return w.f.Join(place, fd)
}
