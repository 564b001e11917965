package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Point 2: 50 connections that wait in the queue of a sibling and 50 whose handshake
// is half done, and the sibling crashes.
//
// Half done by TCP_DEFER_ACCEPT: the listener takes no notice of the last packet of
// the handshake, so a client that says nothing stays half open there, while one that
// speaks is queued. The other sibling is down meanwhile: all come to one socket.
func TestBalanceCrashedQueue(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long, and the race detector sees nothing new in it: without -short")
	}
	for _, c := range []struct {
		name, level string
		inGo        bool
		uid         int
	}{{"best", "", false, 0}, {"best, Go", "", true, 0}, {"classic-bpf", "classic-bpf", false, 0}, {"ordinary user", "", false, nobody}} {
		t.Run(c.name, func(t *testing.T) {
			if c.uid != 0 {
				needRoot(t)
			}
			b := (&balanced{Name: c.name, Level: c.level, Go: c.inGo, World: world{UID: c.uid}, Instances: 2, Keys: `restart = "no"`, Options: `defer_accept = "30s"`}).up(t)
			level := b.level()
			if c.level != "" {
				b.has(t)
			} else if level == "hash" {
				t.Skip("siblings cannot be steered here")
			}
			first := b.status().Instances[0].Runs[0].Pid
			if ok, err := b.kill(2); err != nil || !ok {
				t.Fatal(ok, err)
			}
			eventually(t, "instance 2 gets nothing", func() bool {
				st := b.status()
				return st.Instances[1].State == "failed" && st.Sockets[1].Weight == 0
			})
			if err := syscall.Kill(first, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it has stopped", func() bool { return strings.Contains(processState(first), "T") })
			var clients []net.Conn
			for i := range 100 {
				c, err := net.DialTimeout("tcp", b.address, patience)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				c.SetDeadline(time.Now().Add(patience))
				if i < 50 {
					fmt.Fprintln(c)
				}
				clients = append(clients, c)
			}
			eventually(t, "50 are queued on instance 1", func() bool { return b.status().Sockets[0].Queued == 50 })
			eventually(t, "50 are half open", func() bool { return halfOpen(t, b.address) == 50 })
			// The other sibling comes back; then this one crashes.
			b.do("start")
			if st := b.status(); st.Sockets[0].Queued != 50 || st.Instances[1].State != "ready" {
				t.Fatalf("%d queued, instance 2 is %s", st.Sockets[0].Queued, st.Instances[1].State)
			}
			crashed := time.Now()
			if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "instance 1 has crashed", func() bool { return b.status().Instances[0].State == "failed" })
			if level != "ebpf" { // its queue cannot be moved: it is held until somebody comes back
				b.do("start")
			}
			by, lost := map[string]int{}, 0
			var queued time.Duration
			for i, c := range clients {
				if i >= 50 {
					fmt.Fprintln(c)
				}
				line, err := bufio.NewReader(c).ReadString(' ')
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					lost++
				}
				by["instance "+strings.TrimSpace(line)]++
				if i == 49 {
					queued = time.Since(crashed)
				}
			}
			t.Logf("promise N2: 50 queued and 50 half-open on a crashed sibling, %s, %s: %d of 100 lost, served by %v, the queued within %v", c.name, level, lost, by, queued.Round(time.Millisecond))
		})
	}
}

func (b *balanced) do(verb string) {
	b.t.Helper()
	if out, err := b.client.Verb(b.t.Context(), "web", verb, true, patience); err != nil || out.Outcome != "done" {
		b.t.Fatalf("%s: %+v, %v", verb, out, err)
	}
}

func processState(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	return rest[:min(1, len(rest))]
}

// halfOpen counts the requests that the kernel has half open at an address. While other
// sockets come and go the kernel may list one twice, or leave one out.
func halfOpen(t *testing.T, address string) int {
	t.Helper()
	clients := map[string]bool{}
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	end := fmt.Sprintf(":%04X", tcp.Port)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[1], end) && f[3] == "03" {
			clients[f[2]] = true
		}
	}
	return len(clients)
}
