package steer

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Packets as QUIC has them: a header, and something behind it.

func longPacket(kind byte, id []byte) []byte {
	p := []byte{0xc0 | kind<<4, 0, 0, 0, 1, byte(len(id))}
	p = append(p, id...)
	p = append(p, 8)
	return append(p, "the client's id, and more"...)
}

func shortPacket(id []byte) []byte {
	return append(append([]byte{0x40}, id...), "what nobody but both can read"...)
}

const (
	initial   = 0
	zeroRTT   = 1
	handshake = 2
)

func randomID(rng *rand.Rand) []byte {
	return binary.BigEndian.AppendUint64(nil, rng.Uint64())
}

// issued is an id that a generation at a place issues.
func issued(place int, gen uint64, rng *rand.Rand) []byte {
	return append(binary.BigEndian.AppendUint32(nil, Prefix(place, gen)), randomID(rng)[:4]...)
}

// arrives lets a sender send a datagram, and tells at which place it arrived.
func (f *flows) arrives(sender int, packet []byte) int {
	f.t.Helper()
	_, err := unix.Write(f.senders[sender], packet)
	must(f.t, err)
	var poll []unix.PollFd
	for _, fd := range f.fds {
		poll = append(poll, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	for end := time.Now().Add(patience); time.Now().Before(end); {
		unix.Poll(poll, 100)
		for place, fd := range f.fds {
			b := make([]byte, 2048)
			if n, _, err := unix.Recvfrom(fd, b, 0); err == nil {
				if !bytes.Equal(b[:n], packet) {
					f.t.Fatalf("%x arrived, %x was sent", b[:n], packet)
				}
				return place
			}
		}
	}
	f.t.Fatalf("%x has not arrived", packet)
	return -1
}

// Two instances with a place for each of two generations: 0 and 1 have those before a
// replacement, 2 and 3 those after. Connections stay with their generation, wherever
// their clients send from; what is new goes to the new.
func TestConnectionIDs(t *testing.T) {
	for _, network := range []string{"udp4", "udp6", "udp"} {
		t.Run(network, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			f := newFlows(t, network, 4, 40, EBPF, Options{ConnectionIDs: true})
			any := func() int { return rng.IntN(len(f.senders)) }
			must(t, f.g.Set([]int{1, 1, 0, 0}))
			must(t, f.g.Issue(0, 11))
			must(t, f.g.Issue(1, 12))
			type connection struct {
				client, server []byte
				at             int
			}
			var all []connection
			by := make([]int, 4)
			for range 400 {
				c := connection{client: randomID(rng)}
				c.at = f.arrives(any(), longPacket(initial, c.client))
				by[c.at]++
				c.server = issued(c.at, uint64(11+c.at), rng)
				all = append(all, c)
			}
			fits(t, by, 1, 1, 0, 0)
			moved, packets := 0, 0
			check := func(c connection) {
				for _, p := range [][]byte{longPacket(initial, c.client), longPacket(zeroRTT, c.client), longPacket(initial, c.server),
					longPacket(handshake, c.server), shortPacket(c.server), shortPacket(append(c.server, "longer"...))} {
					packets++
					if at := f.arrives(any(), p); at != c.at {
						moved++
						t.Errorf("%x arrived at place %d, the connection is at %d", p, at, c.at)
					}
				}
			}
			for _, c := range all {
				check(c)
			}
			must(t, f.g.Issue(2, 13))
			must(t, f.g.Issue(3, 14))
			must(t, f.g.Set([]int{0, 0, 1, 1}))
			by = make([]int, 4)
			for _, c := range all {
				check(c)
				by[f.arrives(any(), longPacket(initial, randomID(rng)))]++
			}
			fits(t, by, 0, 0, 1, 1)
			// The old generation leaves, and what it had goes where new ones go, each to one place.
			must(t, f.g.Issue(0, 0))
			must(t, f.g.Issue(1, 0))
			by = make([]int, 4)
			for _, c := range all {
				at := f.arrives(any(), shortPacket(c.server))
				by[at]++
				if again := f.arrives(any(), longPacket(handshake, c.server)); again != at {
					t.Errorf("%x: place %d, then %d", c.server, at, again)
				}
				at = f.arrives(any(), longPacket(initial, c.client)) // what only the client has chosen as well
				by[at]++
				if again := f.arrives(any(), longPacket(initial, c.client)); again != at {
					t.Errorf("%x: place %d, then %d", c.client, at, again)
				}
			}
			if by[0]+by[1] != 0 || by[2] == 0 || by[3] == 0 {
				t.Errorf("connections of nobody went to places %v", by)
			}
			t.Logf("promise N3: %d QUIC connections, %d packets from %d addresses through a replacement, %d came to another process", len(all), packets, len(f.senders), moved)
		})
	}
}

// What is no id of a process that lives, or no QUIC at all, goes where new ones go, and
// nothing is lost.
func TestWhatIsNoConnectionID(t *testing.T) {
	for _, network := range []string{"udp4", "udp6"} {
		t.Run(network, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(3, 4))
			f := newFlows(t, network, 3, 8, EBPF, Options{ConnectionIDs: true})
			must(t, f.g.Set([]int{0, 1, 1}))
			for place, gen := range []uint64{1<<16 + 7, 1 << 16, 9} {
				must(t, f.g.Issue(place, gen))
			}
			if at := f.arrives(0, shortPacket(issued(0, 7, rng))); at != 0 {
				t.Fatalf("an id of place 0 arrived at %d", at)
			}
			if at := f.arrives(0, shortPacket(issued(1, 1<<16, rng))); at != 1 {
				t.Fatalf("an id of place 1 arrived at %d", at)
			}
			var packets [][]byte
			for _, prefix := range []uint32{0, 7, 0xffffffff, Prefix(0, 8), Prefix(MaxPlaces-1, 7), Prefix(MaxPlaces, 7), Prefix(3, 0), Prefix(0, 7) << 8} {
				id := append(binary.BigEndian.AppendUint32(nil, prefix), "rest"...)
				packets = append(packets, shortPacket(id), longPacket(initial, id), longPacket(handshake, id))
			}
			whole := append(issued(0, 7, rng), "0123456789"...)
			for _, p := range [][]byte{shortPacket(whole), longPacket(initial, whole)} {
				for n := range quicLongID - 8 + 8 {
					packets = append(packets, p[:min(n, len(p))])
				}
			}
			for _, length := range []int{0, 1, 3} { // too short for a prefix
				packets = append(packets, longPacket(initial, whole[:length]))
			}
			for range 300 {
				p := make([]byte, rng.IntN(40))
				for i := range p {
					p[i] = byte(rng.Uint32())
				}
				packets = append(packets, p)
			}
			strays := 0
			for i, p := range packets {
				short := len(p) > 0 && p[0]&0x80 == 0
				// A prefix that can be read whole, with eight bytes to hash, is one.
				ours := short && len(p) >= 9 && bytes.HasPrefix(p[1:], whole[:4]) || !short && len(p) >= 14 && p[5] >= 4 && bytes.HasPrefix(p[6:], whole[:4])
				if at := f.arrives(i%len(f.senders), p); (at == 0) != ours {
					t.Errorf("%x arrived at place %d", p, at)
					strays++
				}
			}
			t.Logf("promise N3: %d datagrams that are no QUIC, or for nobody, at %d places of 3 that take new ones: %d astray", len(packets), 2, strays)
		})
	}
}

// A successor goes on with who has issued what.
func TestConnectionIDsAreHeld(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	f := newFlows(t, "udp4", 2, 4, EBPF, Options{ConnectionIDs: true})
	must(t, f.g.Set([]int{1, 0}))
	must(t, f.g.Issue(1, 5))
	id := issued(1, 5, rng)
	for round := range 3 {
		held := crash(t, f.g)
		if at, want := f.arrives(0, shortPacket(id)), map[bool]int{true: 1, false: 0}[round != 2]; at != want {
			t.Fatalf("round %d, while nobody supervises: place %d, want %d", round, at, want)
		}
		var err error
		f.g, err = Open(f.fds, EBPF, Options{ConnectionIDs: round != 1, Held: held})
		drop(t, held)
		must(t, err)
		need(t, f.g, EBPF)
		if round == 2 { // in between nobody routed by ids, and who issued was forgotten
			must(t, f.g.Issue(1, 5))
		}
		must(t, f.g.Set([]int{1, 0}))
		if at, want := f.arrives(1, shortPacket(id)), map[bool]int{true: 1, false: 0}[round != 1]; at != want {
			t.Fatalf("round %d: place %d, want %d", round, at, want)
		}
	}
	if err := f.g.Issue(2, 1); err == nil {
		t.Error("a place without a socket may issue")
	}
}

// Below level EBPF, and of tcp, nothing is routed by ids, and nothing fails.
func TestConnectionIDsElsewhere(t *testing.T) {
	for _, level := range []Level{ClassicBPF, Hash} {
		t.Run(level.String(), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(7, 8))
			f := newFlows(t, "udp4", 2, 20, level, Options{ConnectionIDs: true})
			must(t, f.g.Issue(0, 1))
			for i := range f.senders {
				p := shortPacket(issued(0, 1, rng))
				if first, again := f.arrives(i, p), f.arrives(i, p); first != again {
					t.Errorf("flow %d: place %d, then %d", i, first, again)
				}
			}
		})
	}
	w := newWorldHere(t, "tcp4", 2, EBPF, Options{ConnectionIDs: true})
	must(t, w.g.Set([]int{1, 1}))
	must(t, w.g.Issue(0, 1))
	w.connect(20)
	w.serve(20)
	if n := w.lost(); n != 0 {
		t.Errorf("%d lost", n)
	}
}
