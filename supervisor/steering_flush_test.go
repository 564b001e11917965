package supervisor

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// watchKeys are the watch keys of instance 2's sockets, by name: 0 was never watched.
func watchKeys(t *testing.T, f *fixture) map[string]uint64 {
	t.Helper()
	keys := map[string]uint64{}
	err := f.s.ask(t.Context(), func() error {
		for _, k := range f.s.units["web"].sockets {
			if k.instance == 2 {
				keys[k.name] = k.key
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// flushable is two siblings that accept nothing, of which the second is to die.
func flushable(t *testing.T, more string) *fixture {
	t.Helper()
	text := strings.Replace(fmt.Sprintf(siblings, "", 2, "restart = \"no\"\nstop_timeout = \"100ms\""), "role = serve", "role = deaf", 1)
	f := newFixture(t, "web", text+more)
	f.do("start", "web", Done)
	if f.steered("web") != "ebpf" && !probe().Migration {
		t.Skip("queues cannot be moved here: no eBPF, and net.ipv4.tcp_migrate_req is 0")
	}
	return f
}

// N10: datagrams stay in the socket of an instance that is down, where they would be
// heard of without end: they are not watched for, and late connections are.
func TestDatagramsOfAnInstanceThatIsDownAreNotWatchedFor(t *testing.T) {
	f := flushable(t, "[socket.quic]\nlisten = \"udp://127.0.0.1:0\"\nper_instance = true\n")
	address := f.address("web", "quic")
	for queued := 0; queued == 0; {
		c, err := net.Dial("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		for _, k := range f.unit("web").Sockets {
			if k.Name == "quic" && k.Instance == 2 {
				queued = k.Queued
			}
		}
	}
	kill(t, f.unit("web").Instances[1].Runs[0].Pid)
	waitFor(t, "the queue has been moved", func() bool { return watchKeys(t, f)["http"] != 0 })
	if keys := watchKeys(t, f); keys["quic"] != 0 {
		t.Errorf("watch keys %v, want none of quic", keys)
	}
}

// N10: who comes to a queue that cannot be moved waits in it, and is not heard of
// without end.
func TestQueueThatCannotBeMovedIsNotWatched(t *testing.T) {
	f := flushable(t, "")
	if err := f.s.ask(t.Context(), func() error { // the one that is to take the queue does not listen
		return unix.Shutdown(f.s.units["web"].sockets[0].fd, unix.SHUT_RD)
	}); err != nil {
		t.Fatal(err)
	}
	kill(t, f.unit("web").Instances[1].Runs[0].Pid)
	waitFor(t, "the queue is to be moved", func() bool { return strings.Contains(f.log.String(), "queue held") })
	c, err := net.Dial("tcp", f.address("web", "http"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if keys := watchKeys(t, f); keys["http"] != 0 {
		t.Errorf("watch keys %v, want none", keys)
	}
	if n := strings.Count(f.log.String(), "queue held"); n != 1 {
		t.Errorf("%d times said that the queue is held, want once", n)
	}
}
