package steer

import (
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestShares(t *testing.T) {
	everywhere(t, 4, func(t *testing.T, s setting, w world) {
		g := w.group()
		// Nobody is there to serve: everybody holds.
		fits(t, crowd(w, 1000), 1, 1, 1, 1)
		must(t, g.Set([]int{7, 7, 7, 7}))
		fits(t, crowd(w, 1000), 1, 1, 1, 1)
		err := g.Set([]int{1, 2, 4, 1})
		if !s.steers {
			if !errors.Is(err, ErrUnsteered) {
				t.Errorf("Set: %v, want ErrUnsteered", err)
			}
			fits(t, crowd(w, 1000), 1, 1, 1, 1)
			must(t, g.Set(nil))
			return
		}
		must(t, err)
		fits(t, crowd(w, 2000), 1, 2, 4, 1)
		must(t, g.Set([]int{1, 1, 0, 1}))
		fits(t, crowd(w, 1000), 1, 1, 0, 1)
		must(t, g.Set([]int{0, 1})) // missing ones are 0
		fits(t, crowd(w, 500), 0, 1, 0, 0)
		must(t, g.Set([]int{1, 33, 33, 33})) // a canary of 1 %
		got := crowd(w, 3000)
		fits(t, got, 10, 338, 338, 338)
		if got[0] == 0 {
			t.Error("the canary had nothing")
		}
		must(t, g.Set([]int{0, 0, 0, 0}))
		fits(t, crowd(w, 1000), 1, 1, 1, 1)
	})
}

func TestCountsAddUp(t *testing.T) {
	everywhere(t, 3, func(t *testing.T, s setting, w world) {
		must(t, w.group().Set([]int{1, 1, 1}))
		got := crowd(w, 1000)
		c, ok := w.group().Counts()
		if ok != (s.level == EBPF) {
			t.Fatalf("Counts: %t at level %s", ok, s.level)
		}
		if !ok {
			return
		}
		for place, n := range got {
			if c.Steered[place] != uint64(n) {
				t.Errorf("place %d: %d counted, %d served", place, c.Steered[place], n)
			}
		}
		if c.Hashed != 0 || c.Moved != 0 {
			t.Errorf("%d by the hash and %d moved, want none", c.Hashed, c.Moved)
		}
	})
}

// A place crashes with 50 clients in its queue and 50 handshakes under way.
func TestFlush(t *testing.T) {
	everywhere(t, 4, func(t *testing.T, s setting, w world) {
		g := w.group()
		must(t, ignoreUnsteered(g.Set([]int{0, 1, 0, 0})))
		w.connect(50)
		finish := w.halfOpen(50)
		queued := w.waiting(1)
		if s.steers && queued != 50 {
			t.Fatalf("%d wait at place 1, want 50", queued)
		}
		if err := g.Flush(1); !errors.Is(err, ErrSteered) {
			t.Errorf("Flush of a place with a weight: %v, want ErrSteered", err)
		}
		must(t, ignoreUnsteered(g.Set([]int{1, 0, 1, 1})))
		err := g.Flush(1)
		if !s.migrates {
			if !errors.Is(err, ErrNoMigration) {
				t.Errorf("Flush: %v, want ErrNoMigration", err)
			}
			if n := w.waiting(1); n != queued {
				t.Errorf("%d wait at place 1 after a refused Flush, want %d", n, queued)
			}
			finish()
			w.serve(100)
			return
		}
		must(t, err)
		if !w.listening(1) || w.waiting(1) != 0 {
			t.Errorf("after Flush: listening %t, %d wait; want an empty listener", w.listening(1), w.waiting(1))
		}
		// The handshakes that place 1 has begun end in its queue; it is flushed again.
		finish()
		must(t, g.Flush(1))
		got := w.serve(100)
		if got[1] != 0 {
			t.Errorf("served %v, want none by place 1", got)
		}
		if c, ok := g.Counts(); ok && c.Moved != 100 {
			t.Errorf("%d moved, want 100", c.Moved)
		}
		t.Logf("promise N2: 50 queued and 50 half-open on a crashed sibling, %d lost, served by place %v", w.lost(), got)
		// It is as good as before.
		must(t, ignoreUnsteered(g.Set([]int{1, 1, 1, 1})))
		fits(t, crowd(w, 1000), 1, 1, 1, 1)
	})
}

func ignoreUnsteered(err error) error {
	if errors.Is(err, ErrUnsteered) {
		return nil
	}
	return err
}

func TestFlushOfTheLastIsRefused(t *testing.T) {
	everywhere(t, 3, func(t *testing.T, s setting, w world) {
		g := w.group()
		must(t, g.Set(nil))
		w.connect(30)
		for place := range 3 {
			if err := g.Flush(place); !errors.Is(err, ErrLast) {
				t.Errorf("nobody lives: Flush(%d): %v, want ErrLast", place, err)
			}
		}
		w.serve(30)
		if err := g.Flush(7); !errors.Is(err, ErrNoPlace) {
			t.Errorf("Flush(7): %v, want ErrNoPlace", err)
		}
	})
}

// Only a Flush that comes at once has to wait, and no longer than Settle.
func TestFlushWaitsForTheRest(t *testing.T) {
	f := NewFake(2)
	must(t, f.Set([]int{1, 1}))
	must(t, f.Set([]int{1, 0}))
	f.quiet[1] = time.Now().Add(time.Hour) // as if no time could pass meanwhile
	must(t, f.Flush(1))
	if len(f.net.waits) != 1 || f.net.waits[0] < Settle {
		t.Errorf("waits %v, want one of %v at least", f.net.waits, Settle)
	}
	f.quiet[1] = time.Now().Add(-Settle)
	must(t, f.Flush(1))
	if len(f.net.waits) != 1 {
		t.Errorf("waits %v, want no second", f.net.waits)
	}
}

// Every order of flushes leaves every place as it was: indices of the kernel change,
// places do not.
func TestFlushKeepsPlaces(t *testing.T) {
	everywhere(t, 4, func(t *testing.T, s setting, w world) {
		if !s.steers || !s.migrates {
			t.Skip("needs steering and migration")
		}
		g := w.group()
		for _, place := range []int{1, 0, 3, 3, 2, 1, 0, 2, 3, 1} {
			weights := []int{1, 1, 1, 1}
			weights[place] = 0
			must(t, g.Set(weights))
			must(t, g.Flush(place))
			fits(t, crowd(w, 300), weights...)
			for only := range 4 {
				weights := make([]int, 4)
				weights[only] = 1
				must(t, g.Set(weights))
				fits(t, crowd(w, 20), weights...)
			}
		}
	})
}

// Set refuses what makes no sense, and nothing changes.
func TestBadWeights(t *testing.T) {
	everywhere(t, 2, func(t *testing.T, s setting, w world) {
		for _, weights := range [][]int{{-1, 1}, {1, maxWeight + 1}, slices.Repeat([]int{1}, 3)} {
			if err := w.group().Set(weights); err == nil {
				t.Errorf("Set(%v) is accepted", weights)
			}
		}
		fits(t, crowd(w, 1000), 1, 1)
		must(t, w.group().Close())
		if err := w.group().Set(nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Set after Close: %v, want ErrClosed", err)
		}
	})
}

// Close gives everybody back to the kernel's hash.
func TestClose(t *testing.T) {
	for _, level := range []Level{EBPF, ClassicBPF, Hash} {
		t.Run(level.String(), func(t *testing.T) {
			w := newKernelWorld(t, "tcp4", 3, level, false, Options{})
			must(t, ignoreUnsteered(w.g.Set([]int{1, 0, 0})))
			must(t, w.g.Close())
			fits(t, crowd(w, 1000), 1, 1, 1)
			must(t, w.g.Close())
			if held := w.g.Held(); len(held) != 0 {
				t.Errorf("held after Close: %v", held)
			}
			if _, ok := w.g.Counts(); ok {
				t.Error("counts after Close")
			}
		})
	}
}

// Who watches a place's socket hears nothing of a Flush.
func TestFlushIsNoNews(t *testing.T) {
	w := newKernelWorld(t, "tcp4", 3, EBPF, false, Options{})
	must(t, w.g.Set([]int{1, 0, 1}))
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	must(t, err)
	defer unix.Close(ep)
	must(t, unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, w.fds[1], &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT}))
	for range 10 {
		must(t, w.g.Flush(1))
		if n, err := unix.EpollWait(ep, make([]unix.EpollEvent, 1), 0); n != 0 {
			t.Fatalf("epoll: %d events, %v", n, err)
		}
	}
	must(t, w.g.Set([]int{0, 1, 0}))
	w.connect(1)
	if n, err := unix.EpollWait(ep, make([]unix.EpollEvent, 1), int(patience.Milliseconds())); n != 1 {
		t.Fatalf("epoll: %d events, %v: the watch is lost", n, err)
	}
	w.serve(1)
}
