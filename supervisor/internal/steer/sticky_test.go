package steer

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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
	f.rewrite(func(flow *[2]uint32) { flow[1] -= units })
}

// rewrite changes what is known of all flows: who has them, and when they were heard of.
func (f *flows) rewrite(change func(*[2]uint32)) {
	f.t.Helper()
	m := f.g.(*steering).engine.(*mapped).maps.flows
	known := make(map[uint32][2]uint32)
	var key uint32
	var value [2]uint32
	for all := m.Iterate(); all.Next(&key, &value); {
		known[key] = value
	}
	for key, value := range known {
		change(&value)
		must(f.t, m.Put(key, &value))
	}
}

// A successor that is told to be sticky is, though the group was not.
func TestStickyMayChange(t *testing.T) {
	f := newFlows(t, "udp4", 2, 50, EBPF, Options{})
	for _, sticky := range []bool{true, false, true} {
		held := crash(t, f.g)
		var err error
		f.g, err = Open(f.fds, EBPF, Options{Sticky: sticky, Held: held})
		drop(t, held)
		must(t, err)
		need(t, f.g, EBPF)
		must(t, f.g.Set([]int{1, 0}))
		f.send(0)
		must(t, f.g.Set([]int{0, 1}))
		want := []int{0, 1}
		if sticky {
			want = []int{1, 0}
		}
		fits(t, arrivals(f.send(0), 2), want...)
	}
}

// Two instances with two seats each: places 0 and 1 are those of the first, 2 and 3 of the
// second. A flow is its generation's while that lives, whatever is new goes to; then it is
// its instance's, wherever that has its next generation.
func TestFlowsStayWithTheirGeneration(t *testing.T) {
	for _, network := range []string{"udp4", "udp6", "udp"} {
		t.Run(network, func(t *testing.T) {
			f := newFlows(t, network, 4, 200, EBPF, Options{Sticky: true})
			must(t, f.g.Issue(0, 1))
			must(t, f.g.Issue(2, 2))
			must(t, f.g.Set([]int{1, 0, 1, 0}))
			at := f.send(0)
			fits(t, arrivals(at, 4), 1, 0, 1, 0)
			moved := 0
			// want sends and wants every flow at the seat that its instance has it at.
			want := func(when string, seats ...int) {
				t.Helper()
				now := f.send(0)
				for i := range at {
					if to := at[i]/2*2 + seats[at[i]/2]; now[i] != to {
						moved++
						t.Errorf("%s: flow %d went to place %d, want %d", when, i, now[i], to)
					}
				}
			}
			head := func(instance, seat int) {
				t.Helper()
				must(t, f.g.Inherit(2*instance, 2*instance+seat))
				must(t, f.g.Inherit(2*instance+1, 2*instance+seat))
			}
			must(t, f.g.Issue(1, 3))
			want("another one starts", 0, 0)
			head(0, 1)
			must(t, f.g.Set([]int{0, 1, 1, 0}))
			want("it is ready, and the old one leaves", 0, 0)
			must(t, f.g.Issue(0, 0))
			want("the old one has left", 1, 0)
			must(t, f.g.Issue(0, 4))
			want("the next one starts on the seat that they came from", 1, 0)
			must(t, f.g.Issue(0, 0))
			want("it has failed", 1, 0)
			must(t, f.g.Issue(1, 0))
			must(t, f.g.Set([]int{0, 0, 1, 0}))
			want("nobody is there: they wait", 1, 0)
			must(t, f.g.Issue(1, 5))
			must(t, f.g.Set([]int{0, 1, 1, 0}))
			want("it is back", 1, 0)
			must(t, f.g.Issue(0, 6))
			head(0, 0)
			must(t, f.g.Set([]int{1, 0, 1, 0}))
			want("replaced once more", 1, 0)
			held := crash(t, f.g)
			want("nobody supervises", 1, 0)
			var err error
			f.g, err = Open(f.fds, EBPF, Options{Sticky: true, Held: held})
			drop(t, held)
			must(t, err)
			need(t, f.g, EBPF)
			want("a successor", 1, 0)
			must(t, f.g.Issue(1, 0))
			want("the old one has left", 0, 0)
			// Nobody was at a place when a flow came: it is its heir's.
			must(t, f.g.Issue(2, 0))
			must(t, f.g.Set([]int{0, 0, 1, 0}))
			first := len(f.senders)
			f.more(20)
			fits(t, arrivals(f.send(first), 4), 0, 0, 1, 0)
			must(t, f.g.Issue(3, 7))
			head(1, 1)
			must(t, f.g.Set([]int{1, 0, 0, 1}))
			fits(t, arrivals(f.send(first), 4), 0, 0, 0, 1)
			want("the other instance was replaced", 0, 1)
			if err := f.g.Inherit(0, 4); err == nil {
				t.Error("a place without a socket may inherit")
			}
			t.Logf("promise N3: 200 udp flows of 2 instances with two seats, 4 generations of one and 2 of the other, each datagram where it belongs but %d", moved)
		})
	}
}

// A group of one seat each, left by a supervisor that knew of no other, gets the second.
func TestSeatsAreAdded(t *testing.T) {
	f := newFlows(t, "udp4", 3, 60, EBPF, Options{Sticky: true})
	must(t, f.g.Set([]int{1, 1, 1}))
	f.send(0)
	f.rewrite(func(flow *[2]uint32) { flow[0] = flow[0]>>16 - 1 }) // it knew places only
	held := crash(t, f.g)
	delete(held, "issuers")
	delete(held, "heirs")
	old := f.fds
	f.fds = nil
	for _, fd := range old {
		f.fds = append(f.fds, fd, f.address.socket(t))
	}
	var err error
	f.g, err = Open(f.fds, EBPF, Options{Sticky: true, Held: held})
	must(t, err)
	need(t, f.g, EBPF)
	must(t, f.g.Set([]int{1, 0, 1, 0, 1, 0}))
	fits(t, arrivals(f.send(0), 6), 1, 0, 1, 0, 1, 0)
}
