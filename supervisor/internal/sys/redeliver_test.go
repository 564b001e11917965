package sys

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// What waits in a socket that is dealt nothing any more comes to its sibling: whole, in
// order, and from whom it was.
func TestRedeliver(t *testing.T) {
	needRaw(t)
	for _, row := range []struct{ name, network, address, to string }{
		{"IPv4", "udp4", "127.0.0.1:0", "127.0.0.1"},
		{"IPv6", "udp6", "[::1]:0", "::1"},
		{"any IPv4", "udp4", "0.0.0.0:0", "127.0.0.5"},
		{"any, IPv6", "udp", "[::]:0", "::1"},
		{"any, IPv4", "udp", "[::]:0", "127.0.0.7"},
	} {
		t.Run(row.name, func(t *testing.T) {
			needIPv6For(t, row.address)
			left, address := bindUDP(t, row.network, row.address)
			_, port, _ := net.SplitHostPort(address)
			var conns []net.Conn
			var sent [][]byte
			for i := range 3 {
				c, err := net.Dial("udp", net.JoinHostPort(row.to, port))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				conns = append(conns, c)
				for _, size := range []int{0, 1, 2, 1471, 9001, 3000} {
					b := bytes.Repeat([]byte{byte(i + 1), byte(size), 0xff}, size)[:size]
					sent = append(sent, b)
					if _, err := c.Write(b); err != nil {
						t.Fatal(err)
					}
				}
			}
			next, _ := bindUDP(t, row.network, address)
			// A socket that is connected gets nothing from others.
			var nobody unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}
			if row.network != "udp4" {
				nobody = &unix.SockaddrInet6{Addr: [16]byte{15: 1}, Port: 9}
			}
			if err := unix.Connect(left, nobody); err != nil {
				t.Fatal(err)
			}
			n, err := Redeliver(left, next)
			if err != nil || n != len(sent) {
				t.Fatalf("%d redelivered, %v; %d were sent", n, err, len(sent))
			}
			for i, want := range sent {
				b := make([]byte, 1<<16)
				waitReadable(t, next)
				n, from, err := unix.Recvfrom(next, b, unix.MSG_DONTWAIT)
				if err != nil {
					t.Fatal(err)
				}
				peer, err := peerOf(from)
				if who := conns[i/6].LocalAddr().String(); err != nil || !bytes.Equal(b[:n], want) || peer.String() != who {
					t.Errorf("%d bytes came from %s, want %d from %s", n, peer, len(want), who)
				}
			}
			if queued, _, _, _ := Queue(left); queued != 0 {
				t.Errorf("%d bytes are left", queued)
			}
			if n, err := Redeliver(left, next); n != 0 || err != nil {
				t.Errorf("from an empty socket: %d, %v", n, err)
			}
		})
	}
}

// A sibling that nobody reads is not filled: the rest stays, and goes when there is room.
func TestRedeliverStopsWhereThereIsNoRoom(t *testing.T) {
	needRaw(t)
	left, address := bindUDP(t, "udp4", "127.0.0.1:0")
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := 0
	for queued, room := 0, 1; queued < room/4*3; sent++ {
		fmt.Fprint(c, sent)
		queued, room, _, _ = Queue(left)
	}
	next, _ := bindUDP(t, "udp4", address)
	if err := unix.Connect(left, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}); err != nil {
		t.Fatal(err)
	}
	for read, rounds := 0, 0; read < sent; rounds++ {
		_, err := Redeliver(left, next)
		if rounds == 0 != errors.Is(err, ErrNoRoom) || rounds > 0 && err != nil {
			t.Fatalf("round %d: %v", rounds, err)
		}
		for b := make([]byte, 100); ; read++ {
			n, _, err := unix.Recvfrom(next, b, unix.MSG_DONTWAIT)
			if err != nil {
				break
			}
			if string(b[:n]) != fmt.Sprint(read) {
				t.Fatalf("%s was read, want %d", b[:n], read)
			}
		}
		if _, _, drops, _ := Queue(next); drops > 0 {
			t.Fatalf("%d dropped", drops)
		}
	}
}

// What would not come to a sibling stays where it is.
func TestRedeliverLeavesTheOthers(t *testing.T) {
	for _, row := range []struct {
		name string
		set  func(fd int) error
	}{
		{"bound to a device", func(fd int) error { return unix.BindToDevice(fd, "lo") }},
		{"for other addresses", func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			fd, address := bindUDP(t, "udp4", "127.0.0.1:0")
			c, err := net.Dial("udp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			fmt.Fprint(c, "hello")
			if err := row.set(fd); err != nil {
				t.Skipf("needs a privilege: %v", err)
			}
			if n, err := Redeliver(fd, fd); n != 0 || !errors.Is(err, ErrNotRedelivered) {
				t.Errorf("%d, %v", n, err)
			}
			b := make([]byte, 100)
			if n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT); string(b[:max(n, 0)]) != "hello" {
				t.Errorf("%q, %v is left", b[:max(n, 0)], err)
			}
		})
	}
}

// needRaw skips where nothing can be sent in the name of others.
func needRaw(t *testing.T) {
	t.Helper()
	if err := MayRedeliver(); err != nil {
		t.Skipf("needs CAP_NET_RAW: %v", err)
	}
}

func bindUDP(t *testing.T, network, address string) (fd int, real string) {
	t.Helper()
	b, err := Bind(network, address, Options{ReusePort: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(b.FD) })
	return b.FD, b.Address
}

func waitReadable(t *testing.T, fd int) {
	t.Helper()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60_000); n != 1 {
		t.Fatalf("nothing to read: %v", err)
	}
}
