package sys

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A busy machine may have thousands of processes; the tests are not in a hurry.
func init() { lookFor = time.Minute }

// commName is what /proc calls the test binary: at most 15 bytes.
func commName(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func TestOwnerIsNamed(t *testing.T) {
	for _, row := range []struct{ name, network, theirs, ours string }{
		{"tcp", "tcp", "127.0.0.1:0", "127.0.0.1"},
		{"wildcard against one", "tcp", "0.0.0.0:0", "127.0.0.1"},
		{"one against wildcard", "tcp", "127.0.0.1:0", "0.0.0.0"},
		{"dual stack against IPv4", "tcp", "[::]:0", "0.0.0.0"},
		{"IPv4 against dual stack", "tcp", "127.0.0.1:0", "::"},
		{"IPv6", "tcp", "[::1]:0", "::"},
		{"udp", "udp", "127.0.0.1:0", "127.0.0.1"},
		{"udp, dual stack", "udp", "[::]:0", "127.0.0.1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			needIPv6For(t, row.theirs, row.ours)
			out, _ := bindElsewhere(t, bindJob{UID: -1, Network: row.network, Address: row.theirs, Options: none()})
			if out.Err != "" {
				t.Fatal(out.Err)
			}
			_, port, _ := net.SplitHostPort(out.Address)
			address := net.JoinHostPort(row.ours, port)
			_, err := Bind(row.network, address, none())
			want := fmt.Sprintf("bind %s %s: address already in use by %s (pid %d, uid %d)", row.network, address, commName(t), out.Pid, os.Getuid())
			if err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if !errors.Is(err, unix.EADDRINUSE) {
				t.Error("is not EADDRINUSE")
			}
		})
	}
}

func TestOwnerIsUs(t *testing.T) {
	b := mustBind(t, "tcp", "127.0.0.1:0", none())
	_, err := Bind("tcp", b.Address, none())
	e := new(BindError)
	if !errors.As(err, &e) || e.Owner == nil || !e.Owner.Self {
		t.Fatalf("%v", err)
	}
	if inode, _ := Inode(b.FD); e.Owner.Inode != inode {
		t.Errorf("inode %d, want %d", e.Owner.Inode, inode)
	}
	if want := fmt.Sprintf("bind tcp %s: address already in use by another socket of sockd itself (inode %d)", b.Address, e.Owner.Inode); err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}

// A user may not look into root's processes, but sees the socket.
func TestOwnerOutOfSight(t *testing.T) {
	needRoot(t)
	b := mustBind(t, "tcp", "127.0.0.1:0", none())
	inode, _ := Inode(b.FD)
	out, _ := bindElsewhere(t, bindJob{UID: 65534, Network: "tcp", Address: b.Address, Options: none()})
	want := fmt.Sprintf("bind tcp %s: address already in use by a process of uid 0 that is not visible from here (socket inode %d)", b.Address, inode)
	if out.Err != want {
		t.Errorf("got  %s\nwant %s", out.Err, want)
	}
}

func TestOwnerTimeWait(t *testing.T) {
	b := mustBind(t, "tcp", "127.0.0.1:0", none())
	client := dialRaw(t, b)
	conn, _, err := unix.Accept(b.FD)
	if err != nil {
		t.Fatal(err)
	}
	// Who closes first keeps the TIME_WAIT: the server's port, as after a restart.
	unix.Close(conn)
	if n, err := unix.Read(client, make([]byte, 1)); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	unix.Close(client)
	b.close()
	off := false
	o := none()
	o.ReuseAddr = &off
	_, err = Bind("tcp", b.Address, o)
	if want := fmt.Sprintf("bind tcp %s: address already in use by a connection in TIME_WAIT (reuse_addr = true binds beside it)", b.Address); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	mustBind(t, "tcp", b.Address, none())
}

func TestOwnerUnix(t *testing.T) {
	for name, address := range map[string]string{
		"path":     filepath.Join(t.TempDir(), "s"),
		"abstract": "@sockd-test-" + randomHex(8),
	} {
		for _, network := range []string{"unix", "unixgram", "unixpacket"} {
			t.Run(name+" "+network, func(t *testing.T) {
				out, end := bindElsewhere(t, bindJob{UID: -1, Network: network, Address: address, Options: none()})
				defer end()
				if out.Err != "" {
					t.Fatal(out.Err)
				}
				_, err := Bind(network, address, none())
				want := fmt.Sprintf("bind %s %s: address already in use by %s (pid %d, uid %d)", network, address, commName(t), out.Pid, os.Getuid())
				if err == nil || err.Error() != want {
					t.Errorf("got  %v\nwant %s", err, want)
				}
			})
		}
	}
}

// Who conflicts with whom: kernel.md, section 1. What is on the port and not in the
// way must not be blamed.
func TestOverlap(t *testing.T) {
	for _, row := range []struct {
		network, mine string
		only          bool
		theirs        string
		theirsOnly    bool
		want          bool
	}{
		{"tcp", "127.0.0.1:80", false, "127.0.0.1", false, true},
		{"tcp", "127.0.0.1:80", false, "127.0.0.2", false, false},
		{"tcp", "127.0.0.1:80", false, "0.0.0.0", false, true},
		{"tcp", "0.0.0.0:80", false, "127.0.0.2", false, true},
		{"tcp", "0.0.0.0:80", false, "::", false, true},
		{"tcp", "0.0.0.0:80", false, "::", true, false},
		{"tcp", "0.0.0.0:80", false, "::1", true, false},
		{"tcp", "127.0.0.1:80", false, "::", false, true},
		{"tcp", "127.0.0.1:80", false, "::ffff:127.0.0.1", false, true},
		{"tcp", "127.0.0.1:80", false, "::ffff:127.0.0.2", false, false},
		{"tcp", "0.0.0.0:80", false, "::ffff:127.0.0.2", false, true},
		{"tcp", "[::]:80", false, "127.0.0.1", false, true},
		{"tcp", "[::]:80", true, "127.0.0.1", false, false},
		{"tcp", "[::]:80", false, "::1", true, true},
		{"tcp", "[::1]:80", false, "::", false, true},
		{"tcp", "[::1]:80", false, "0.0.0.0", false, false},
		{"tcp", "[::1]:80", false, "fe80::1", true, false},
	} {
		list, err := targets(row.network, row.mine, row.only)
		if err != nil {
			t.Fatal(err)
		}
		s := &diagSocket{family: unix.AF_INET6, addr: netip.MustParseAddr(row.theirs), v6only: row.theirsOnly}
		if s.addr.Is4() {
			s.family = unix.AF_INET
		}
		if got := overlap(list[0], s); got != row.want {
			t.Errorf("%s (only %v) and %s (only %v): %v", row.mine, row.only, row.theirs, row.theirsOnly, got)
		}
	}
}

// Of several sockets in the way the one that explains most is named.
func TestOwnerRank(t *testing.T) {
	far := netip.MustParseAddrPort("127.0.0.1:5")
	order := []diagSocket{
		{state: tcpTimeWait, remote: far},
		{state: 1, remote: far}, // a connection that nobody holds
		{state: 1, remote: far, inode: 9},
		{state: 7, inode: 9}, // bound
		{state: tcpListen, inode: 9},
	}
	for i := 1; i < len(order); i++ {
		if a, b := order[i-1].rank(), order[i].rank(); a >= b {
			t.Errorf("%+v has rank %d, %+v has %d", order[i-1], a, order[i], b)
		}
	}
}

// Bound and not listening: in no list of listeners, and still in the way.
func TestOwnerBoundOnly(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	sa, _ := unix.Getsockname(fd)
	_, err = Bind("tcp", addressOf(sa), none())
	e := new(BindError)
	if !errors.As(err, &e) || !errors.Is(err, unix.EADDRINUSE) {
		t.Fatalf("%v", err)
	}
	if e.Owner == nil {
		t.Skip("this kernel does not list bound sockets (Linux 6.8)")
	}
	if !e.Owner.Self {
		t.Errorf("%v", err)
	}
}
