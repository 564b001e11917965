package sys

import (
	"errors"
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
		})
	}
}

// Two specific addresses never conflict, and IPv6 alone leaves IPv4 free.
func TestBindSideBySide(t *testing.T) {
	a := mustBind(t, "udp", "127.0.0.1:0", none())
	port := a.Address[len("127.0.0.1"):]
	mustBind(t, "udp", "127.0.0.2"+port, none())
	mustBind(t, "udp", "[::1]"+port, none())

	only := none()
	only.IPv6Only = true
	six := mustBind(t, "tcp", "[::]:0", only)
	mustBind(t, "tcp", "0.0.0.0"+six.Address[len("[::]"):], none())
}
