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

// Senders that all use one port, as name and time servers do, spread as well.
func TestSendersOnOnePortSpread(t *testing.T) {
	for _, level := range []Level{EBPF, ClassicBPF} {
		t.Run(level.String(), func(t *testing.T) {
			f := newFlows(t, "udp4", 4, 0, level, Options{})
			must(t, f.g.Set([]int{1, 1, 1, 1}))
			for host := byte(1); host <= 200; host++ {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
				must(t, err)
				t.Cleanup(func() { unix.Close(fd) })
				must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 1, host}, Port: 1053}))
				must(t, unix.Connect(fd, f.address.clients[0]))
				f.senders = append(f.senders, fd)
			}
			fits(t, arrivals(f.send(0), 4), 1, 1, 1, 1)
		})
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
