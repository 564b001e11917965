package supervisor

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sockd/sockd/activation"
)

func init() {
	// A server that has the headers of QUIC and nothing else. It answers each packet with who
	// it is, and the prefix of its connection ids. At SIGTERM it goes on: it has connections.
	// A packet that ends in "leave" ends it; after one that ends in "deaf" it reads no more.
	roles["quic"] = func() {
		term := catchTERM()
		pc, err := net.FilePacketConn(os.NewFile(3, ""))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(95)
		}
		notify("READY=1")
		go func() {
			<-term
			notify("STATUS=draining")
		}()
		for b := make([]byte, 1500); ; {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				os.Exit(96)
			}
			if bytes.HasSuffix(b[:n], []byte("leave")) {
				return
			}
			fmt.Fprintf(writerTo{pc, from}, "%s %s %d %x\n", os.Getenv("SOCKD_INSTANCE"), os.Getenv("SOCKD_GENERATION"), os.Getpid(), activation.ConnectionIDPrefix())
			if bytes.HasSuffix(b[:n], []byte("deaf")) {
				select {}
			}
		}
	}
}

const quicUnit = `
[service]
role = quic
ready = "notify"
start = "boot"
instances = %d
step = 2
[socket.quic]
listen = "udp://127.0.0.1:0"
per_instance = true
flows = "quic"
%s
`

// A quicConnection is what a client knows of one.
type quicConnection struct {
	answer
	client, server []byte // ids
}

// say sends a packet from a socket of its own, as a client does whose address changes.
func (c *quicConnection) say(t *testing.T, address string, packet []byte) (a answer, prefix []byte) {
	t.Helper()
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(packet); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 100)
	n, err := conn.Read(line)
	if err != nil {
		t.Fatalf("nobody answers %x: %v", packet, err)
	}
	fmt.Sscanf(string(line[:n]), "%d %d %d %x", &a.instance, &a.gen, &a.pid, &prefix)
	return a, prefix
}

// openQUIC makes a connection: the first packet is for an id of the client's, the server's
// answer tells its own.
func openQUIC(t *testing.T, address string) *quicConnection {
	t.Helper()
	c := &quicConnection{client: make([]byte, 8), server: make([]byte, 8)}
	rand.Read(c.client)
	rand.Read(c.server)
	var prefix []byte
	c.answer, prefix = c.say(t, address, c.long(c.client))
	if len(prefix) != 4 {
		t.Fatalf("prefix %x", prefix)
	}
	copy(c.server, prefix)
	return c
}

func (c *quicConnection) long(id []byte) []byte {
	return append(append([]byte{0xc3, 0, 0, 0, 1, byte(len(id))}, id...), 0, 0)
}

func (c *quicConnection) short(text string) []byte {
	return append(append([]byte{0x41}, c.server...), text...)
}

// quicFixture is a running unit with so many instances; it skips where nothing routes ids.
func quicFixture(t *testing.T, instances int) (f *fixture, address string) {
	t.Helper()
	if !routesFlows() {
		t.Skipf("packets cannot be routed by connection ids here: %+v", probe())
	}
	f = newFixture(t, "web", fmt.Sprintf(quicUnit, instances, ""))
	t.Cleanup(func() { f.s.Kill() }) // they have connections, and would not leave
	f.do("start", "web", Done)
	return f, f.address("web", "quic")
}

// stray counts the connections whose packets come to another process.
func stray(t *testing.T, address string, all []*quicConnection) (stray int) {
	t.Helper()
	for _, c := range all {
		for _, p := range [][]byte{c.short("hello"), c.long(c.server)} {
			if a, _ := c.say(t, address, p); a != c.answer {
				t.Errorf("a packet for %x came to %+v, its connection is at %+v", c.server, a, c.answer)
				stray++
			}
		}
	}
	return stray
}

// Connections stay with their process through a replacement, whatever address their
// packets come from; those that are new go to the new processes; and the supervisor may
// die meanwhile.
func TestQUICThroughAReplacement(t *testing.T) {
	f, address := quicFixture(t, 2)
	inodes := func() (list []uint64) {
		for _, k := range f.unit("web").Sockets {
			list = append(list, k.Inode)
		}
		return list
	}
	was := inodes()
	if len(was) != 4 {
		t.Fatalf("%d sockets, want two for each of two instances", len(was))
	}
	moved, total, upto := 0, 0, 2
	for round := range 3 {
		var all []*quicConnection
		by := map[int]bool{}
		for len(all) < 40 || len(by) < 2 {
			c := openQUIC(t, address)
			by[c.instance] = true
			all = append(all, c)
		}
		total += len(all)
		moved += stray(t, address, all)
		done := make(chan Outcome, 1)
		go func(s *Supervisor) {
			out, _ := s.restartUnit(t.Context(), errand{unit: "web", wait: true})
			done <- out
		}(f.s)
		f.until("the old ones drain", func() bool {
			for _, in := range f.unit("web").Instances {
				if len(in.Runs) != 2 || in.Runs[0].State != "draining" || in.Runs[1].State != "ready" {
					return false
				}
			}
			return true
		})
		if round == 1 {
			f.crash()
			moved += stray(t, address, all) // while nobody supervises
			f.start()
		}
		moved += stray(t, address, all)
		var newer []*quicConnection
		for range 20 {
			c := openQUIC(t, address)
			if c.gen <= upto {
				t.Errorf("a new connection came to generation %d, which leaves", c.gen)
			}
			newer = append(newer, c)
		}
		moved += stray(t, address, newer)
		gone := map[int]bool{}
		for _, c := range all {
			if !gone[c.pid] {
				gone[c.pid] = true
				conn, err := net.Dial("udp", address)
				if err != nil {
					t.Fatal(err)
				}
				conn.Write(c.short("leave"))
				conn.Close()
			}
		}
		f.until("the old ones have left", func() bool {
			for _, in := range f.unit("web").Instances {
				if len(in.Runs) != 1 || in.State != "ready" {
					return false
				}
			}
			return true
		})
		if round != 1 {
			if out := <-done; out.Outcome != Done {
				t.Fatalf("%+v", out)
			}
		}
		for _, c := range all { // nobody has them any more: somebody new says so to the client
			for _, p := range [][]byte{c.short("hello"), c.long(c.client)} {
				if a, _ := c.say(t, address, p); a.gen <= upto {
					t.Errorf("generation %d answers, which has left", a.gen)
				}
			}
		}
		moved += stray(t, address, newer)
		upto = int(f.unit("web").LastGen)
	}
	if now := inodes(); fmt.Sprint(now) != fmt.Sprint(was) {
		t.Errorf("sockets %v, before %v", now, was)
	}
	for _, k := range f.unit("web").Sockets {
		if k.Flows != "quic" || k.Steering != "ebpf" {
			t.Errorf("%+v", k)
		}
	}
	t.Logf("promise N3: %d QUIC connections through 3 replacements of 2 instances, each packet from another address, %d packets to another process", total, moved)
}

// A process that dies: its connections are nobody's, what is new waits for its successor
// or goes to a sibling, and nothing is without a reader.
func TestQUICAfterACrash(t *testing.T) {
	_, address := quicFixture(t, 1)
	c := openQUIC(t, address)
	for range 3 {
		kill(t, c.pid)
		a, _ := c.say(t, address, c.short("hello"))
		if a.pid == c.pid {
			t.Fatalf("the dead answer: %+v", a)
		}
		c = openQUIC(t, address)
		if c.answer != a {
			t.Errorf("%+v answers, before %+v", c.answer, a)
		}
		stray(t, address, []*quicConnection{c})
	}
}

// Scaling leaves the others' connections alone, and a reload from and to other flows finds
// a reader for everybody.
func TestQUICScalesAndReloads(t *testing.T) {
	f, address := quicFixture(t, 2)
	var first []*quicConnection
	for len(first) < 20 {
		if c := openQUIC(t, address); c.instance == 1 {
			first = append(first, c)
		}
	}
	for _, n := range []int{4, 1, 2} {
		ctx := t.Context()
		done := make(chan error, 1)
		go func() {
			out, err := f.s.scaleUnit(ctx, errand{unit: "web", wait: true}, n)
			if err == nil && out.Outcome != Done {
				err = fmt.Errorf("%+v", out)
			}
			done <- err
		}()
		if n == 1 { // the servers of the others have connections, and wait for the end of them
			f.until("they drain", func() bool { return f.unit("web").Instances[3].State == "draining" })
			for _, in := range f.unit("web").Instances[1:] {
				kill(t, in.Runs[0].Pid)
			}
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if k := f.unit("web").Sockets; len(k) != 2*n {
			t.Errorf("%d sockets of %d instances", len(k), n)
		}
		stray(t, address, first)
	}
	if _, err := f.s.scaleUnit(t.Context(), errand{unit: "web", wait: true}, 513); err == nil {
		t.Error("scaled to 513")
	}
	for _, flows := range []string{"", "sticky", "quic"} {
		last := int(f.unit("web").LastGen)
		key, sockets, prefixed := fmt.Sprintf("flows = %q", flows), 4, 0
		switch flows {
		case "":
			key, sockets = "", 2
		case "quic":
			prefixed = 4
		}
		f.write("web", strings.Replace(fmt.Sprintf(quicUnit, 2, ""), `flows = "quic"`, key, 1))
		if err := f.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.until("all are replaced", func() bool {
			for _, in := range f.unit("web").Instances {
				if len(in.Runs) == 0 || in.Runs[len(in.Runs)-1].State != "ready" || int(in.Runs[len(in.Runs)-1].Gen) <= last {
					return false
				}
			}
			return true
		})
		for _, in := range f.unit("web").Instances { // a third run must wait for the first
			kill(t, in.Runs[0].Pid)
		}
		f.until("the old ones have left", func() bool {
			st := f.unit("web")
			return len(st.Instances[0].Runs)+len(st.Instances[1].Runs) == 2
		})
		for range 20 {
			a, prefix := first[0].say(t, address, first[0].long(first[0].client))
			if a.gen <= last || len(prefix) != prefixed {
				t.Fatalf("flows %q: %+v answers, its prefix is %x", flows, a, prefix)
			}
			rand.Read(first[0].client)
		}
		if k := f.unit("web").Sockets; len(k) != sockets || k[0].Flows != flows {
			t.Errorf("flows %q: %+v", flows, k)
		}
	}
}

// Without eBPF there is one socket for each instance, and no prefix.
func TestQUICWithoutEBPF(t *testing.T) {
	for _, level := range []string{"classic-bpf", "hash"} {
		t.Run(level, func(t *testing.T) {
			t.Setenv(levelVariable, level)
			f := newFixture(t, "web", fmt.Sprintf(quicUnit, 2, ""))
			t.Cleanup(func() { f.s.Kill() })
			f.do("start", "web", Done)
			k := f.unit("web").Sockets
			if len(k) != 2 || k[0].Flows != "not kept" {
				t.Errorf("%+v", k)
			}
			c := &quicConnection{client: make([]byte, 8)}
			for range 20 {
				if _, prefix := c.say(t, k[0].Address, c.long(c.client)); len(prefix) != 0 {
					t.Fatalf("prefix %x", prefix)
				}
			}
		})
	}
}
