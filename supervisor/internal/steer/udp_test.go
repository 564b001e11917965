package steer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A flows is a udp group with senders, each its own flow.
type flows struct {
	t       *testing.T
	address *address
	fds     []int
	g       Group
	senders []int
}

func newFlows(t *testing.T, network string, places, senders int, level Level, o Options) *flows {
	t.Helper()
	namespace(t)
	f := &flows{t: t, address: addressOf(network)}
	for range places {
		f.fds = append(f.fds, f.address.socket(t))
	}
	var err error
	f.g, err = Open(f.fds, level, o)
	must(t, err)
	t.Cleanup(func() { f.g.Close() })
	need(t, f.g, level)
	f.more(senders)
	return f
}

func (f *flows) more(n int) {
	for range n {
		fd, err := f.address.dial(len(f.senders))
		must(f.t, err)
		f.t.Cleanup(func() { unix.Close(fd) })
		f.senders = append(f.senders, fd)
	}
}

// send lets every flow from first on send a datagram, and tells at which place it
// arrived. None may be lost.
func (f *flows) send(first int) (places []int) {
	f.t.Helper()
	var b [4]byte
	places = slices.Repeat([]int{-1}, len(f.senders))
	missing := 0
	for i := first; i < len(f.senders); i++ {
		binary.NativeEndian.PutUint32(b[:], uint32(i))
		_, err := unix.Write(f.senders[i], b[:])
		must(f.t, err)
		missing++
		if missing == 100 || i == len(f.senders)-1 { // a receive buffer holds 256 small ones
			f.receive(missing, places)
			missing = 0
		}
	}
	return places
}

func (f *flows) receive(missing int, places []int) {
	f.t.Helper()
	var poll []unix.PollFd
	for _, fd := range f.fds {
		poll = append(poll, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	for deadline := time.Now().Add(patience); missing > 0; {
		if time.Now().After(deadline) {
			f.t.Fatalf("%d datagrams are lost", missing)
		}
		unix.Poll(poll, 100)
		for place, fd := range f.fds {
			var b [4]byte
			for {
				if n, _, err := unix.Recvfrom(fd, b[:], 0); err != nil || n != 4 {
					break
				}
				places[binary.NativeEndian.Uint32(b[:])] = place
				missing--
			}
		}
	}
}

func arrivals(places []int, n int) []int {
	by := make([]int, n)
	for _, p := range places {
		if p >= 0 {
			by[p]++
		}
	}
	return by
}

func changed(a, b []int) (n int) {
	for i := range a {
		if a[i] >= 0 && a[i] != b[i] {
			n++
		}
	}
	return n
}

// Flows of places that keep their weight stay where they are; those of a place that
// is drained go elsewhere and come back.
func TestFlowsStayWithTheirPlace(t *testing.T) {
	for _, level := range []Level{EBPF, ClassicBPF} {
		for _, network := range []string{"udp4", "udp6", "udp"} {
			t.Run(fmt.Sprintf("%s %s", level, network), func(t *testing.T) {
				f := newFlows(t, network, 4, 400, level, Options{})
				must(t, f.g.Set([]int{1, 1, 1, 1}))
				at := f.send(0)
				fits(t, arrivals(at, 4), 1, 1, 1, 1)
				if n := changed(at, f.send(0)); n != 0 {
					t.Fatalf("%d flows moved for no reason", n)
				}
				for drained := range 4 {
					w := []int{1, 1, 1, 1}
					w[drained] = 0
					must(t, f.g.Set(w))
					now := f.send(0)
					fits(t, arrivals(now, 4), w...)
					for i := range at {
						if at[i] != drained && now[i] != at[i] {
							t.Errorf("flow %d moved from place %d to %d while %d was drained", i, at[i], now[i], drained)
						}
					}
					must(t, f.g.Set([]int{1, 1, 1, 1}))
					if n := changed(at, f.send(0)); n != 0 {
						t.Errorf("%d flows are not back after place %d returned", n, drained)
					}
				}
				if err := f.g.Set([]int{1, 0, 1, 1}); err != nil {
					t.Fatal(err)
				}
				if err := f.g.Flush(1); !errors.Is(err, ErrDatagrams) {
					t.Errorf("Flush: %v, want ErrDatagrams", err)
				}
			})
		}
	}
}

// Five rolling replacements, each with new sockets for a new generation: the old
// flows stay with the generation that has them until its sockets leave.
func TestStickyFlowsDoNotMove(t *testing.T) {
	for _, network := range []string{"udp4", "udp6", "udp"} {
		t.Run(network, func(t *testing.T) {
			f := newFlows(t, network, 4, 400, EBPF, Options{Sticky: true})
			must(t, f.g.Set([]int{1, 1, 1, 1}))
			at := f.send(0)
			fits(t, arrivals(at, 4), 1, 1, 1, 1)
			moved := 0
			weights := []int{1, 1, 1, 1}
			for round := range 5 {
				// The places that were new give way to four newer ones.
				for i := range weights {
					weights[i] = 0
				}
				for range 4 {
					place := len(f.fds)
					f.fds = append(f.fds, f.address.socket(t))
					must(t, f.g.Join(place, f.fds[place]))
					weights = append(weights, 1)
				}
				must(t, f.g.Set(weights))
				before := len(f.senders)
				f.more(40)
				now := f.send(0)
				moved += changed(at, now[:before])
				for i := before; i < len(now); i++ {
					if now[i] < len(f.fds)-4 {
						t.Errorf("round %d: new flow %d went to place %d of an old generation", round, i, now[i])
					}
				}
				at = now
			}
			if moved != 0 {
				t.Errorf("%d flows moved", moved)
			}
			// The first generation leaves, and its flows are taken by the last.
			for place := range 4 {
				must(t, f.g.Leave(place))
				must(t, unix.Close(f.fds[place]))
				f.fds[place], _ = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
				t.Cleanup(func() { unix.Close(f.fds[place]) })
			}
			now := f.send(0)
			for i := range at {
				if at[i] >= 4 && now[i] != at[i] || at[i] < 4 && now[i] < len(f.fds)-4 {
					t.Errorf("flow %d moved from place %d to %d", i, at[i], now[i])
				}
			}
			if n := changed(now, f.send(0)); n != 0 {
				t.Errorf("%d flows moved after the first generation had left", n)
			}
			c, _ := f.g.Counts()
			total := uint64(0)
			for _, n := range c.Steered {
				total += n
			}
			sent := uint64(400 + 440 + 480 + 520 + 560 + 600 + 600 + 600)
			if total != sent || c.Hashed != 0 {
				t.Errorf("%d datagrams counted and %d by the hash, %d sent", total, c.Hashed, sent)
			}
			t.Logf("promise N3: %d udp flows over 5 replacements of all sockets, %d moved", 400, moved)
		})
	}
}

// A flow that is forgotten goes where the weights say.
func TestStickyFlowsAreForgotten(t *testing.T) {
	f := newFlows(t, "udp4", 2, 64, EBPF, Options{Sticky: true, Flows: 16, FlowTimeout: time.Hour})
	must(t, f.g.Set([]int{1, 0}))
	f.send(0)
	must(t, f.g.Set([]int{0, 1}))
	if n := arrivals(f.send(0), 2); n[1] == 0 {
		t.Errorf("by place %v: a table of 16 flows remembers all of 64", n)
	}
	if n := arrivals(f.send(0), 2); n[0] > 64-16 {
		t.Errorf("by place %v", n)
	}
}

// So is one that has been silent for longer than the timeout.
func TestSilentFlowsAreForgotten(t *testing.T) {
	f := newFlows(t, "udp4", 2, 100, EBPF, Options{Sticky: true, FlowTimeout: time.Minute})
	must(t, f.g.Set([]int{1, 0}))
	f.send(0)
	must(t, f.g.Set([]int{0, 1}))
	if n := arrivals(f.send(0), 2); n[0] != 100 {
		t.Fatalf("by place %v: the flows are not remembered", n)
	}
	f.age(50)
	fits(t, arrivals(f.send(0), 2), 1, 0) // 53.7 s, rounded up to 56 units
	f.age(60)
	fits(t, arrivals(f.send(0), 2), 0, 1)
	fits(t, arrivals(f.send(0), 2), 0, 1)
}

// age makes all known flows look silent for so many units of 1.07 s.
func (f *flows) age(units uint32) {
	f.t.Helper()
	m := f.g.(*steering).engine.(*mapped).maps.flows
	known := make(map[uint32][2]uint32)
	var key uint32
	var value [2]uint32
	for all := m.Iterate(); all.Next(&key, &value); {
		known[key] = value
	}
	for key, value := range known {
		value[1] -= units
		must(f.t, m.Put(key, &value))
	}
}

// A sender's datagrams that wait in a place's socket when it leaves stay there.
func TestDatagramsStayQueued(t *testing.T) {
	for _, s := range []struct {
		level   Level
		network string
	}{{EBPF, "udp4"}, {EBPF, "udp"}, {ClassicBPF, "udp4"}, {ClassicBPF, "udp6"}, {ClassicBPF, "udp"}} {
		t.Run(fmt.Sprintf("%s %s", s.level, s.network), func(t *testing.T) {
			f := newFlows(t, s.network, 3, 60, s.level, Options{})
			must(t, f.g.Set([]int{0, 1, 0}))
			for i, fd := range f.senders {
				_, err := unix.Write(fd, binary.NativeEndian.AppendUint32(nil, uint32(i)))
				must(t, err)
			}
			must(t, f.g.Set([]int{1, 1, 1}))
			must(t, f.g.Leave(1))
			places := slices.Repeat([]int{-1}, 60)
			f.receive(60, places)
			fits(t, arrivals(places, 3), 0, 1, 0)
			fits(t, arrivals(f.send(0), 3), 1, 0, 1)
			// The order of the kernel has changed, and a newcomer takes the place. The old
			// socket has not been closed: somebody else may hold it too.
			f.fds[1] = f.address.socket(t)
			must(t, f.g.Join(1, f.fds[1]))
			fits(t, arrivals(f.send(0), 3), 1, 0, 1)
			for only := range 3 {
				w := make([]int, 3)
				w[only] = 1
				must(t, f.g.Set(w))
				fits(t, arrivals(f.send(0), 3), w...)
			}
		})
	}
}
