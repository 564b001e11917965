package main

import (
	"crypto/rand"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor"
)

// A quicPeer is a client's end of a connection with examples/quic.
type quicPeer struct {
	id   []byte // the server's
	with string // the process that has it
}

// quicAsk sends a packet from a socket of its own: each has another address.
func quicAsk(t *testing.T, address string, packet []byte) []byte {
	t.Helper()
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(packet); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 200)
	n, err := c.Read(answer)
	if err != nil || n == 0 {
		t.Fatalf("nobody answers %x: %v", packet, err)
	}
	return answer[:n]
}

func quicOpen(t *testing.T, address string) *quicPeer {
	t.Helper()
	packet := []byte{0xc0, 0, 0, 0, 1, 8, 14: 0}
	rand.Read(packet[6:14])
	a := quicAsk(t, address, packet)
	if len(a) < 15 || a[0] != 0xc0 || a[6] != 8 {
		t.Fatalf("answer %q", a)
	}
	with, _, _ := strings.Cut(string(a[15:]), ": packet 1")
	return &quicPeer{id: a[7:15], with: with}
}

// say says whether the connection's own process has answered.
func (p *quicPeer) say(t *testing.T, address, text string) bool {
	t.Helper()
	a := quicAsk(t, address, append(append([]byte{0x40}, p.id...), text...))
	if own := strings.HasPrefix(string(a[1:]), p.with+": packet "); own {
		return true
	}
	t.Errorf("a packet of a connection with %s is answered by %s", p.with, a[1:])
	return false
}

// The server of examples/quic under `sockd run`: four siblings, replaced two at a time, the
// supervisor killed while old processes still have connections.
func TestQUICExampleIsReplaced(t *testing.T) {
	dir := shortDir(t)
	build := exec.Command("go", "build", "-o", dir+"/", "../../examples/quic")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	write(t, dir, "quic.toml", `
[service]
exec = "./quic"
ready = "notify"
start = "boot"
instances = 4
step = 2
[socket.quic]
listen = "udp://127.0.0.1:0"
per_instance = true
flows = "quic"
`)
	r := start(t, dir, "run", "quic.toml")
	client := supervisor.NewClient(filepath.Join(dir, "run"))
	status := func() supervisor.UnitStatus {
		t.Helper()
		st, err := client.Unit(t.Context(), "quic")
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	for range 4 {
		r.line("ready")
	}
	first := status()
	if k := first.Sockets[0]; k.Flows != "quic" {
		t.Skipf("flows are %s: connection ids are not routed here, it needs eBPF (%s)", k.Flows, k.Steering)
	}
	address := first.Sockets[0].Address

	astray, packets, killed := 0, 0, 0
	say := func(all []*quicPeer, text string) {
		t.Helper()
		for _, p := range all {
			packets++
			if !p.say(t, address, text) {
				astray++
			}
		}
	}
	open := func(n int) (all []*quicPeer) {
		for range n {
			all = append(all, quicOpen(t, address))
		}
		return all
	}
	connections := open(40)
	total := len(connections)
	for round := range 2 {
		was := status()
		old := map[string]bool{}
		for _, in := range was.Instances {
			old[fmt.Sprintf("instance %d of 4, process %d", in.Instance, in.Runs[0].Pid)] = true
		}
		restarted := make(chan string, 1)
		go func() {
			stdout, stderr, code := sockd(t, dir, "restart", "quic")
			restarted <- fmt.Sprint(code, " ", stdout, stderr)
		}()
		eventually(t, "the old processes drain", func() bool {
			say(connections, "hello")
			for _, in := range status().Instances {
				if len(in.Runs) != 2 || in.Runs[0].State != "draining" || in.Runs[1].State != "ready" {
					return false
				}
			}
			return true
		})
		if round == 0 {
			pid := supervisorUnder(t, r.cmd.Process.Pid)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			killed++
			eventually(t, "another supervisor answers", func() bool {
				say(connections, "hello")
				return supervisorUnder(t, r.cmd.Process.Pid) != pid
			})
			status()
		}
		say(connections, "hello")
		newer := open(40)
		for _, p := range newer {
			if old[p.with] {
				t.Errorf("a new connection with %s, which leaves", p.with)
			}
		}
		say(newer, "hello")
		say(connections, "bye") // now the old processes can leave
		connections, total = newer, total+len(newer)
		if got := <-restarted; got != "0 quic: restarted\n" {
			t.Errorf("restart: %s", got)
		}
		say(connections, "hello")
	}
	last := status()
	for _, in := range last.Instances {
		if len(in.Runs) != 1 || in.Starts != 3 {
			t.Errorf("%+v", in)
		}
	}
	for i, k := range last.Sockets {
		if k.Inode != first.Sockets[i].Inode {
			t.Errorf("socket %s was %d and is %d", k.Held, first.Sockets[i].Inode, k.Inode)
		}
	}
	say(connections, "bye")
	t.Logf("promise N3: %d QUIC connections with the example, 4 siblings replaced twice, two at a time, %d SIGKILL of the supervisor, %d packets, each from another address: %d to another process than their connection's", total, killed, packets, astray)
}
