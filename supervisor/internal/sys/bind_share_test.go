package sys

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Who may share an address: kernel.md, section 1, as far as our options reach. In
// each row the first socket is bound (and listens), then the second is tried.
func TestBindSharing(t *testing.T) {
	on, off := true, false
	plain := none()
	plain.ReuseAddr = &off
	ra, rp, rarp := plain, plain, plain
	ra.ReuseAddr = &on
	rp.ReusePort = true
	rarp.ReuseAddr, rarp.ReusePort = &on, true
	for _, row := range []struct {
		name          string
		first, second Options
		tcp, udp      bool // may share
	}{
		{"nothing", plain, plain, false, false},
		{"one RA", ra, plain, false, false},
		{"one RP", rp, plain, false, false},
		{"RA and RP", ra, rp, false, false},
		{"RA and RA", ra, ra, false, true},
		{"RP and RP", rp, rp, true, true},
		{"RA and RA+RP", ra, rarp, false, true},
		{"both RA+RP", rarp, rarp, true, true},
		{"our defaults", none(), none(), false, false},
	} {
		for network, want := range map[string]bool{"tcp": row.tcp, "udp": row.udp} {
			t.Run(row.name+" "+network, func(t *testing.T) {
				a := mustBind(t, network, "127.0.0.1:0", row.first)
				b, err := Bind(network, a.Address, row.second)
				if err == nil {
					b.close()
				} else if !errors.Is(err, unix.EADDRINUSE) {
					t.Fatal(err)
				}
				if (err == nil) != want {
					t.Errorf("shared: %v, want %v (%v)", err == nil, want, err)
				}
			})
		}
	}
}

// A reuseport group is of one uid: nobody else can join and take connections.
func TestBindSharingBetweenUsers(t *testing.T) {
	needRoot(t)
	on := true
	rp := none()
	rp.ReusePort = true
	both := rp
	both.ReuseAddr = &on
	for _, row := range []struct {
		name, network string
		o             Options
		uid           int
		want          bool
	}{
		{"tcp, same user", "tcp", rp, 0, true},
		{"tcp, another user", "tcp", rp, 65534, false},
		{"udp, same user", "udp", rp, 0, true},
		{"udp, another user", "udp", rp, 65534, false},
		{"udp with reuse_addr: the hole", "udp", both, 65534, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := mustBind(t, row.network, "127.0.0.1:0", row.o)
			out, _ := bindElsewhere(t, bindJob{UID: row.uid, Network: row.network, Address: a.Address, Options: row.o})
			if (out.Err == "") != row.want {
				t.Errorf("joined: %v, want %v (%s)", out.Err == "", row.want, out.Err)
			}
			if want := "only among sockets of one user, and sockd is uid 65534"; out.Err != "" && !strings.Contains(out.Err, want) {
				t.Errorf("%s\ndoes not say %q", out.Err, want)
			}
		})
	}
}

// Who wants to share hears that the other does not.
func TestBindBesideOneThatDoesNotShare(t *testing.T) {
	rp := none()
	rp.ReusePort = true
	a := mustBind(t, "tcp", "127.0.0.1:0", none())
	out, _ := bindElsewhere(t, bindJob{UID: -1, Network: "tcp", Address: a.Address, Options: rp})
	if want := "all of its sockets have SO_REUSEPORT, and that one has not"; !strings.Contains(out.Err, want) {
		t.Errorf("%q does not say %q", out.Err, want)
	}
}

// Two specific addresses never conflict, and IPv6 alone leaves IPv4 free.
func TestBindSideBySide(t *testing.T) {
	port := ":" + quietPort(t)
	mustBind(t, "udp", "127.0.0.1"+port, none())
	mustBind(t, "udp", "127.0.0.2"+port, none())
	needIPv6(t)
	mustBind(t, "udp", "[::1]"+port, none())

	only := none()
	only.IPv6Only = true
	mustBind(t, "tcp", "[::]"+port, only)
	mustBind(t, "tcp", "0.0.0.0"+port, none())
}

// needIPv6 skips where the machine has no address of IPv6, as in many containers.
func needIPv6(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("needs IPv6: %v", err)
	}
	ln.Close()
}

// needIPv6For is needIPv6 where an address is of it.
func needIPv6For(t *testing.T, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		if strings.Contains(a, "::") {
			needIPv6(t)
		}
	}
}

// quietPort is a port that nobody has, and that the kernel gives to nobody who asks for
// any.
func quietPort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(10_000 + rand.IntN(20_000))
		if ln, err := net.Listen("tcp", ":"+port); err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// A service's port is bound again while connections of before are alive: that is
// what SO_REUSEADDR is for on tcp, also where port 0 has put it off.
func TestBindBesideConnections(t *testing.T) {
	for name, first := range map[string]string{"port 0": "127.0.0.1:0", "named": "127.0.0.1:" + quietPort(t)} {
		t.Run(name, func(t *testing.T) {
			b := mustBind(t, "tcp", first, none())
			defer unix.Close(dialRaw(t, b))
			conn, _, err := unix.Accept(b.FD)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(conn)
			b.close()
			mustBind(t, "tcp", b.Address, none())
		})
	}
}

// A multicast group reaches those who joined it and nobody else on the port, and a
// socket bound to the group gets nothing that was sent to another address.
func TestBindMulticast(t *testing.T) {
	on := true
	o := none()
	o.ReuseAddr = &on
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skip("no loopback interface called lo")
	}
	group := [4]byte{239, 255, 7, 7}
	join := &unix.IPMreqn{Multiaddr: group, Ifindex: int32(lo.Index)}
	all := mustBind(t, "udp4", "0.0.0.0:0", o)
	port := all.Address[len("0.0.0.0"):]
	idle := mustBind(t, "udp4", "0.0.0.0"+port, o)
	bound := mustBind(t, "udp4", "239.255.7.7"+port, o)
	for _, b := range []*Bound{all, bound} {
		if err := unix.SetsockoptIPMreqn(b.FD, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, join); err != nil {
			t.Skipf("cannot join a group on lo: %v", err)
		}
	}
	sender := mustBind(t, "udp4", "127.0.0.1:0", none())
	if err := unix.SetsockoptIPMreqn(sender.FD, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, join); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(all.FD)
	if err != nil {
		t.Fatal(err)
	}
	number := sa.(*unix.SockaddrInet4).Port
	if err := unix.Sendto(sender.FD, []byte("group"), 0, &unix.SockaddrInet4{Addr: group, Port: number}); err != nil {
		t.Fatal(err)
	}
	// Loopback delivers before sendto returns.
	for name, row := range map[string]struct {
		b    *Bound
		want int
	}{"joined": {all, 1}, "joined and bound to it": {bound, 1}, "joined nothing": {idle, 0}} {
		got := 0
		for buf := make([]byte, 16); ; got++ {
			if _, _, err := unix.Recvfrom(row.b.FD, buf, unix.MSG_DONTWAIT); err != nil {
				break
			}
		}
		if got != row.want {
			t.Errorf("%s: %d datagrams, want %d", name, got, row.want)
		}
	}
}
