package sys

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// arrived waits until so many are in a queue: a client may know of it a little earlier.
func arrived(t *testing.T, ln net.Listener, n int) {
	t.Helper()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	awaitQueued(t, int(f.Fd()), n)
}

func TestOldestWaiting(t *testing.T) {
	for _, c := range []struct{ name, network, listen, dial string }{
		{"IPv4", "tcp4", "127.0.0.1:0", "127.0.0.1"},
		{"every IPv4", "tcp4", "0.0.0.0:0", "127.0.0.1"},
		{"IPv6", "tcp6", "[::1]:0", "::1"},
		{"IPv4 to both", "tcp", "[::]:0", "127.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ln, err := net.Listen(c.network, c.listen)
			if err != nil {
				t.Skip(err)
			}
			defer ln.Close()
			addr := netip.MustParseAddrPort(ln.Addr().String())
			if got, err := OldestWaiting(addr); err != nil || got != 0 {
				t.Errorf("nobody: %v, %v", got, err)
			}
			_, port, _ := net.SplitHostPort(ln.Addr().String())
			before := time.Now()
			conn, err := net.Dial("tcp", net.JoinHostPort(c.dial, port))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			arrived(t, ln, 1)
			dialed := time.Now()
			<-time.After(100 * time.Millisecond) // what is awaited is that nobody accepts
			conn.Write([]byte("x"))              // that does not count
			least := time.Since(dialed)
			got, err := OldestWaiting(addr)
			most := time.Since(before)
			// The kernel's clock of connections ticks every 1 to 10 ms, and may be late where
			// a virtual processor stands still.
			least, most = least/2, most+20*time.Millisecond
			if err != nil || got < least || got > most {
				t.Errorf("%v, %v; want %v to %v", got, err, least, most)
			}
			conn.(*net.TCPConn).CloseWrite()
			if got, err := OldestWaiting(addr); err != nil || got < least {
				t.Errorf("of one that says no more: %v, %v", got, err)
			}
			elsewhere := netip.AddrPortFrom(netip.MustParseAddr("127.9.9.9"), addr.Port())
			if got, err := OldestWaiting(elsewhere); err != nil || got != 0 {
				t.Errorf("of another address: %v, %v", got, err)
			}
			served, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer served.Close()
			if got, err := OldestWaiting(addr); err != nil || got != 0 {
				t.Errorf("accepted: %v, %v", got, err)
			}
		})
	}
}
