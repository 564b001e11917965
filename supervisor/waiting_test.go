package supervisor

import (
	"net"
	"slices"
	"testing"
	"time"
)

// crowd connects to unit web until n wait in one of its sockets, and returns all who have.
func (f *fixture) crowd(socket, n int) (clients []net.Conn) {
	f.t.Helper()
	for f.unit("web").Sockets[socket].Queued < n {
		c, err := net.Dial("tcp", f.address("web", "http"))
		if err != nil {
			f.t.Fatal(err)
		}
		f.t.Cleanup(func() { c.Close() })
		if clients = append(clients, c); len(clients) > 5000 {
			f.t.Fatalf("nothing is queued in socket %d", socket)
		}
	}
	return clients
}

// wantServed has each of them read something.
func wantServed(t *testing.T, clients []net.Conn) {
	t.Helper()
	for i, c := range clients {
		c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Errorf("client %d of %d: %v", i, len(clients), err)
		}
	}
}

// flowOf is one of the flows that a process has.
func flowOf(t *testing.T, flows []*peer, pid int) *peer {
	t.Helper()
	at := slices.IndexFunc(flows, func(p *peer) bool { return p.pid == pid })
	if at < 0 {
		t.Fatalf("process %d has none of %d flows", pid, len(flows))
	}
	return flows[at]
}

// moved says to which instance the flows of a process have gone.
func moved(flows []*peer, pid, instance int) {
	for _, p := range flows {
		if p.pid == pid {
			p.instance = instance
		}
	}
}
