package sys

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// countLinks counts descriptors of this process whose target begins so.
func countLinks(t testing.TB, prefix string) (n int) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, prefix) {
			n++
		}
	}
	return n
}

func TestOptionsReadBack(t *testing.T) {
	yes, no, seven, tos, ttl := true, false, 7, 0x10, 33
	five := 5
	for _, row := range []struct {
		name, network, address string
		root                   bool
		set                    func(*Options)
		want                   []string
	}{
		{"tcp default", "tcp", ":0", false, func(o *Options) {}, []string{"SO_REUSEADDR=1", "SO_REUSEPORT=0", "IPV6_V6ONLY=0", "O_NONBLOCK=0", "SO_KEEPALIVE=0", "TCP_NODELAY=0"}},
		{"udp default", "udp", ":0", false, func(o *Options) {}, []string{"SO_REUSEADDR=0", "SO_REUSEPORT=0", "IPV6_V6ONLY=0", "IP_MULTICAST_ALL=0", "IPV6_MULTICAST_ALL=0"}},
		{"udp4 default", "udp4", ":0", false, func(o *Options) {}, []string{"IP_MULTICAST_ALL=0"}},
		{"reuse_port", "tcp", "127.0.0.1:0", false, func(o *Options) { o.ReusePort = true }, []string{"SO_REUSEPORT=1"}},
		{"reuse_addr off", "tcp", "127.0.0.1:0", false, func(o *Options) { o.ReuseAddr = &no }, []string{"SO_REUSEADDR=0"}},
		{"reuse_addr on", "udp", "127.0.0.1:0", false, func(o *Options) { o.ReuseAddr = &yes }, []string{"SO_REUSEADDR=1"}},
		{"non_blocking", "tcp", "127.0.0.1:0", false, func(o *Options) { o.NonBlocking = true }, []string{"O_NONBLOCK=1"}},
		{"ipv6_only", "tcp", "[::]:0", false, func(o *Options) { o.IPv6Only = true }, []string{"IPV6_V6ONLY=1"}},
		{"one IPv6 address", "tcp", "[::1]:0", false, func(o *Options) {}, []string{"IPV6_V6ONLY=1"}},
		{"free_bind", "tcp", "192.0.2.1:0", false, func(o *Options) { o.FreeBind = true }, []string{"IP_FREEBIND=1"}},
		{"free_bind of IPv6", "tcp", "[2001:db8::1]:0", false, func(o *Options) { o.FreeBind = true }, []string{"IPV6_FREEBIND=1"}},
		{"transparent", "tcp", "192.0.2.1:0", true, func(o *Options) { o.Transparent = true }, []string{"IP_TRANSPARENT=1"}},
		{"transparent of IPv6", "udp", "[2001:db8::1]:0", true, func(o *Options) { o.Transparent = true }, []string{"IPV6_TRANSPARENT=1"}},
		{"bind_to_device", "tcp", "127.0.0.1:0", false, func(o *Options) { o.BindToDevice = "lo" }, []string{"SO_BINDTODEVICE=lo"}},
		{"mark", "tcp", "127.0.0.1:0", true, func(o *Options) { o.Mark = &seven }, []string{"SO_MARK=7"}},
		{"priority", "udp", "127.0.0.1:0", false, func(o *Options) { o.Priority = &five }, []string{"SO_PRIORITY=5"}},
		{"buffers", "udp", "127.0.0.1:0", false, func(o *Options) { o.ReceiveBuffer, o.SendBuffer = 100_000, 50_000 }, []string{"SO_RCVBUF=200000", "SO_SNDBUF=100000"}},
		{"large buffers", "tcp", "127.0.0.1:0", true, func(o *Options) { o.ReceiveBuffer = 16 << 20 }, []string{"SO_RCVBUF=33554432"}},
		{"keep_alive", "tcp", "127.0.0.1:0", false, func(o *Options) { o.KeepAlive = true }, []string{"SO_KEEPALIVE=1"}},
		{"no_delay", "tcp", "127.0.0.1:0", false, func(o *Options) { o.NoDelay = true }, []string{"TCP_NODELAY=1"}},
		{"defer_accept, rounded up", "tcp", "127.0.0.1:0", false, func(o *Options) { o.DeferAccept = 100 * time.Millisecond }, []string{"TCP_DEFER_ACCEPT=1"}},
		{"fast_open", "tcp", "127.0.0.1:0", false, func(o *Options) { o.FastOpen = 9 }, []string{"TCP_FASTOPEN=9"}},
		{"ip_tos", "tcp", ":0", false, func(o *Options) { o.IPTOS = &tos }, []string{"IP_TOS=16", "IPV6_TCLASS=16"}},
		{"ip_ttl", "udp", ":0", false, func(o *Options) { o.IPTTL = &ttl }, []string{"IP_TTL=33", "IPV6_UNICAST_HOPS=33"}},
		{"tcp's own, of udp", "udp", "127.0.0.1:0", false, func(o *Options) { o.NoDelay = true; o.FastOpen = 3 }, []string{"SO_REUSEADDR=0"}},
		{"unix", "unix", "@sockd-test-" + randomHex(8), false, func(o *Options) { o.ReceiveBuffer = 100_000; o.ReusePort = true }, []string{"SO_RCVBUF=200000", "O_NONBLOCK=0"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.root && os.Geteuid() != 0 {
				t.Skip("needs root: CAP_NET_ADMIN")
			}
			if !strings.Contains(row.address, "2001:") { // which nobody has
				needIPv6For(t, row.address)
			}
			o := none()
			row.set(&o)
			b := mustBind(t, row.network, row.address, o)
			got, err := OptionsOf(b.FD)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range row.want {
				if !slices.Contains(got, want) {
					t.Errorf("%s is not in %v", want, got)
				}
			}
			if again, _ := OptionsOf(b.FD); !slices.Equal(got, again) || !slices.IsSorted(got) {
				t.Errorf("read again: %v", again)
			}
			if len(b.Warnings) != 0 {
				t.Errorf("warnings: %q", b.Warnings)
			}
		})
	}
}

// Every key that has an option is covered by the test above.
func TestOptionsTableIsReadBack(t *testing.T) {
	b := mustBind(t, "tcp", ":0", none())
	list, err := OptionsOf(b.FD)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(list, " ") + " "
	for _, row := range options {
		if row.has(kind{family: unix.AF_INET6, typ: unix.SOCK_STREAM}) && !strings.Contains(text, row.name+"=") {
			t.Errorf("%s is not read back", row.name)
		}
	}
	if err := SetNonblock(b.FD, true); err != nil {
		t.Fatal(err)
	}
	if list, _ := OptionsOf(b.FD); !slices.Contains(list, "O_NONBLOCK=1") {
		t.Errorf("a changed flag is not seen: %v", list)
	}
	SetNonblock(b.FD, false)
}

// What the kernel hands to connections is there for the first one already.
func TestOptionsAreInherited(t *testing.T) {
	tos := 0x08
	o := none()
	o.KeepAlive, o.NoDelay, o.ReceiveBuffer, o.IPTOS = true, true, 50_000, &tos
	b := mustBind(t, "tcp", "127.0.0.1:0", o)
	client := dialRaw(t, b)
	defer unix.Close(client)
	conn, _, err := unix.Accept(b.FD)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(conn)
	got, err := OptionsOf(conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"SO_KEEPALIVE=1", "TCP_NODELAY=1", "SO_RCVBUF=100000", "IP_TOS=8"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not in %v", want, got)
		}
	}
}

func TestOptionFails(t *testing.T) {
	o := none()
	o.BindToDevice = "nope0"
	_, err := Bind("tcp", "127.0.0.1:0", o)
	if want := "bind tcp 127.0.0.1:0: bind_to_device: set SO_BINDTODEVICE: no such device"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if e := new(OptionError); !errors.As(err, &e) || e.Key != "bind_to_device" || !errors.Is(err, unix.ENODEV) {
		t.Errorf("%#v", err)
	}
	o.Optional = []string{"mark", "bind_to_device"}
	b := mustBind(t, "tcp", "127.0.0.1:0", o)
	if want := []string{"bind_to_device: set SO_BINDTODEVICE: no such device"}; !slices.Equal(b.Warnings, want) {
		t.Errorf("warnings %q, want %q", b.Warnings, want)
	}
}

func TestOptionsUnprivileged(t *testing.T) {
	needRoot(t)
	mark, high := 3, 7
	limit, _ := sysctlNumber("net/core/rmem_max")
	for _, row := range []struct {
		name    string
		set     func(*Options)
		err     string
		warning string
	}{
		{"mark", func(o *Options) { o.Mark = &mark }, "bind tcp 127.0.0.1:0: mark: set SO_MARK: operation not permitted (needs CAP_NET_ADMIN)", ""},
		{"mark, optional", func(o *Options) { o.Mark = &mark; o.Optional = []string{"mark"} }, "", "mark: set SO_MARK: operation not permitted (needs CAP_NET_ADMIN)"},
		{"priority", func(o *Options) { o.Priority = &high }, "bind tcp 127.0.0.1:0: priority: set SO_PRIORITY: operation not permitted (above 6 needs CAP_NET_ADMIN)", ""},
		{"transparent", func(o *Options) { o.Transparent = true }, "bind tcp 127.0.0.1:0: transparent: set IP_TRANSPARENT: operation not permitted (needs CAP_NET_ADMIN or CAP_NET_RAW)", ""},
		{"receive_buffer", func(o *Options) { o.ReceiveBuffer = 2 * limit }, "", fmt.Sprintf("receive_buffer: got %d of %d bytes (raise net.core.rmem_max, or give sockd CAP_NET_ADMIN)", limit, 2*limit)},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := none()
			row.set(&o)
			out, end := bindElsewhere(t, bindJob{UID: 65534, Network: "tcp", Address: "127.0.0.1:0", Options: o})
			defer end()
			if out.Err != row.err {
				t.Errorf("got  %s\nwant %s", out.Err, row.err)
			}
			if got := strings.Join(out.Warnings, "\n"); got != row.warning {
				t.Errorf("warnings %q, want %q", got, row.warning)
			}
		})
	}
}

func TestBacklog(t *testing.T) {
	limit := somaxconn()
	for backlog, want := range map[int]int{0: limit, 7: 7, limit + 1: limit} {
		o := none()
		o.Backlog = backlog
		b := mustBind(t, "tcp", "127.0.0.1:0", o)
		if _, got, _, err := Queue(b.FD); err != nil || got != want {
			t.Errorf("backlog %d: got %d, %v; want %d", backlog, got, err, want)
		}
		if warned := len(b.Warnings) == 1; warned != (backlog > limit) {
			t.Errorf("backlog %d: warnings %q", backlog, b.Warnings)
		}
	}
}

// dialRaw connects a plain blocking socket; in loopback it is queued when this returns,
// or a moment later.
func dialRaw(t testing.TB, b *Bound) int {
	t.Helper()
	sa, err := unix.Getsockname(b.FD)
	if err != nil {
		t.Fatal(err)
	}
	k, err := kindOf(b.FD)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(k.family, k.typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, sa); err != nil {
		t.Fatal(err)
	}
	return fd
}
