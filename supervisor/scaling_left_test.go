package supervisor

import (
	"fmt"
	"slices"
	"testing"
)

// What the process of an instance that is one too many has not read is answered by another.
func TestWhatAScaledAwayProcessHasNotRead(t *testing.T) {
	needRaw(t)
	for _, level := range []string{"", "classic-bpf", "hash"} {
		t.Run(level, func(t *testing.T) {
			t.Setenv(levelVariable, level)
			f := newFixture(t, "web", fmt.Sprintf(stickyUnit, 2, ""))
			t.Cleanup(func() { f.s.Kill() })
			f.do("start", "web", Done)
			flows := peers(t, f.address("web", "quic"), 40)
			second := f.unit("web").Instances[1].Runs[0].Pid
			deafen(t, flowOf(t, flows, second))
			sent := say(t, flows, second, 5)
			done := make(chan error, 1)
			go func() {
				_, err := f.s.scaleUnit(t.Context(), errand{unit: "web", wait: true}, 1)
				done <- err
			}()
			f.until("it drains", func() bool { return slices.Contains(f.draining(), second) })
			kill(t, second)
			moved(flows, second, 1)
			if heard := hear(t, flows, second, 5); heard != sent {
				t.Errorf("%d answered, %d sent", heard, sent)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// What there is no room for is held until there is, whoever supervises then.
func TestWhatAScaledAwayProcessHasNotReadWaitsForRoom(t *testing.T) {
	needRaw(t)
	for _, crash := range []bool{false, true} {
		f := newFixture(t, "web", fmt.Sprintf(stickyUnit, 2, ""))
		t.Cleanup(func() { f.s.Kill() })
		f.do("start", "web", Done)
		flows, pids := deafInstances(t, f, "web")
		first, second := f.fill(flows, pids[0], 1, 60), f.fill(flows, pids[1], 2, 60) // the first has no room for what the second has
		go f.s.scaleUnit(t.Context(), errand{unit: "web"}, 1)
		f.until("it drains", func() bool { return slices.Contains(f.draining(), pids[1]) })
		kill(t, pids[1])
		f.until("it has left", func() bool { return len(f.unit("web").Instances) == 1 })
		if crash {
			f.crash()
			f.start()
		}
		kill(t, pids[0]) // the next one reads
		heard := hear(t, flows, pids[0], first)
		for _, p := range flows {
			p.instance = 1
		}
		heard += hear(t, flows, pids[1], second)
		f.nothingLeft()
		t.Logf("promise N3: %d datagrams that two processes had not read, one of them scaled away where there was no room for its own: each answered", heard)
	}
}

// seatOf is the socket that an instance's process sits on.
func (f *fixture) seatOf(instance int) SocketStatus {
	f.t.Helper()
	for _, k := range f.unit("web").Sockets {
		if k.Instance == instance && k.Seat == 0 {
			return k
		}
	}
	f.t.Fatalf("instance %d has no socket", instance)
	return SocketStatus{}
}
