package sys

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestBindWhereItSays(t *testing.T) {
	for _, row := range []struct {
		name, network, address, want string // want: the address, with port 0 for any
	}{
		{"all addresses", "tcp", ":0", "[::]:0"},
		{"all addresses, spelled out", "tcp", "[::]:0", "[::]:0"},
		{"all of IPv4", "tcp", "0.0.0.0:0", "0.0.0.0:0"},
		{"tcp4", "tcp4", ":0", "0.0.0.0:0"},
		{"tcp6", "tcp6", ":0", "[::]:0"},
		{"one IPv4", "tcp", "127.0.0.1:0", "127.0.0.1:0"},
		{"one IPv6", "tcp", "[::1]:0", "[::1]:0"},
		{"localhost", "tcp", "localhost:0", "127.0.0.1:0"},
		{"localhost of tcp6", "tcp6", "localhost:0", "[::1]:0"},
		{"mapped is IPv4", "tcp", "[::ffff:127.0.0.1]:0", "127.0.0.1:0"},
		{"udp", "udp", ":0", "[::]:0"},
		{"udp4", "udp4", "127.0.0.1:0", "127.0.0.1:0"},
		{"udp6", "udp6", "[::1]:0", "[::1]:0"},
		{"multicast", "udp", "239.1.2.3:0", "239.1.2.3:0"},
		{"multicast with zone", "udp", "[ff02::123%lo]:0", "[ff02::123%lo]:0"},
		{"zone as a number", "udp", "[ff02::123%1]:0", "[ff02::123%lo]:0"},
	} {
		t.Run(row.name, func(t *testing.T) {
			needIPv6For(t, row.want)
			b := mustBind(t, row.network, row.address, none())
			got, err := netip.ParseAddrPort(b.Address)
			if err != nil {
				t.Fatal(err)
			}
			if got.Port() == 0 {
				t.Fatalf("%s: port 0 has not become a port", b.Address)
			}
			if s := netip.AddrPortFrom(got.Addr(), 0).String(); s != row.want {
				t.Errorf("bound to %s, want %s", s, row.want)
			}
			if b.Network != row.network || b.Path != nil || len(b.Warnings) != 0 {
				t.Errorf("%+v", b)
			}
			flags, _ := unix.FcntlInt(uintptr(b.FD), unix.F_GETFL, 0)
			if flags&unix.O_NONBLOCK != 0 {
				t.Error("O_NONBLOCK is on")
			}
			if flags, _ := unix.FcntlInt(uintptr(b.FD), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
				t.Error("FD_CLOEXEC is off")
			}
			if on, err := Listening(b.FD); err != nil || on != strings.HasPrefix(row.network, "tcp") {
				t.Errorf("Listening: %v, %v", on, err)
			}
		})
	}
}

// Each of the two families reaches a dual-stack socket, and only IPv6 one that is not.
func TestBindDualStack(t *testing.T) {
	needIPv6(t)
	only := none()
	only.IPv6Only = true
	for _, row := range []struct {
		name, network string
		o             Options
		four          bool
	}{
		{"tcp is both", "tcp", none(), true},
		{"tcp6 is IPv6", "tcp6", none(), false},
		{"ipv6_only", "tcp", only, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := mustBind(t, row.network, ":0", row.o)
			unix.SetNonblock(b.FD, true)
			_, port, _ := net.SplitHostPort(b.Address)
			for host, want := range map[string]bool{"127.0.0.1": row.four, "::1": true} {
				c, err := net.Dial("tcp", net.JoinHostPort(host, port)) // somebody else may have the port on IPv4
				if want && err == nil {
					waitReadable(t, b.FD) // a client may know of it a little earlier
				}
				got, _, acceptErr := unix.Accept4(b.FD, unix.SOCK_CLOEXEC)
				if (acceptErr == nil) != want {
					t.Errorf("connect to %s: %v, accept: %v, want success %v", host, err, acceptErr, want)
				}
				if c != nil {
					c.Close()
				}
				unix.Close(got)
			}
		})
	}
}

// A machine without IPv6 refuses the socket, not the bind.
func TestBindWithoutIPv6(t *testing.T) {
	socket := func(domain, typ, proto int) (int, error) {
		if domain == unix.AF_INET6 {
			return -1, unix.EAFNOSUPPORT
		}
		return unix.Socket(domain, typ, proto)
	}
	o := none()
	b, err := bindInet("tcp", ":0", &o, socket)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(b.FD)
	if !strings.HasPrefix(b.Address, "0.0.0.0:") {
		t.Errorf("bound to %s", b.Address)
	}
	for _, address := range []string{"[::]:0", "[::1]:0"} {
		if _, err := bindInet("tcp", address, &o, socket); !errors.Is(err, unix.EAFNOSUPPORT) {
			t.Errorf("%s: %v, want EAFNOSUPPORT: IPv6 was asked for by name", address, err)
		}
	}
	o.IPv6Only = true
	if _, err := bindInet("tcp", ":0", &o, socket); !errors.Is(err, unix.EAFNOSUPPORT) {
		t.Errorf("ipv6_only: %v, want EAFNOSUPPORT", err)
	}
}

func TestBindRefuses(t *testing.T) {
	only := none()
	only.IPv6Only = true
	for _, row := range []struct {
		name, network, address string
		o                      Options
		want                   string
	}{
		{"unknown network", "sctp", ":80", none(), `bind sctp :80: unknown network "sctp"`},
		{"no port", "tcp", "127.0.0.1", none(), `bind tcp 127.0.0.1: "127.0.0.1" is not HOST:PORT (IPv6 hosts stand in brackets: [::1]:80)`},
		{"bare IPv6", "tcp", "::1:80", none(), `bind tcp ::1:80: "::1:80" is not HOST:PORT (IPv6 hosts stand in brackets: [::1]:80)`},
		{"port too large", "tcp", ":65536", none(), `bind tcp :65536: port "65536" is not in 0..65535`},
		{"port by name", "tcp", ":http", none(), `bind tcp :http: port "http" is not in 0..65535`},
		{"port with a sign", "tcp", ":+80", none(), `bind tcp :+80: port "+80" is not in 0..65535`},
		{"empty port", "tcp", "127.0.0.1:", none(), `bind tcp 127.0.0.1:: port "" is not in 0..65535`},
		{"a name", "tcp", "example.com:80", none(), `bind tcp example.com:80: "example.com" is not an IP address (names are not looked up; write the address, or nothing for all)`},
		{"IPv6 of tcp4", "tcp4", "[::1]:80", none(), `bind tcp4 [::1]:80: ::1 is not an IPv4 address (use tcp6://)`},
		{"IPv4 of udp6", "udp6", "127.0.0.1:80", none(), `bind udp6 127.0.0.1:80: 127.0.0.1 is not an IPv6 address (use udp4://)`},
		{"no such address", "tcp", "192.0.2.1:8080", none(), `bind tcp 192.0.2.1:8080: cannot assign requested address (no interface has this address; free_bind = true binds it before one has)`},
		{"no such zone", "tcp", "[fe80::1%nope]:8080", none(), `bind tcp [fe80::1%nope]:8080: zone nope: no such device`},
		{"no zone", "tcp", "[fe80::1]:8080", none(), `bind tcp [fe80::1]:8080: invalid argument (a link-local address needs its interface: [fe80::1%eth0]:8080)`},
		{"no path", "unix", "", none(), `bind unix : a name or a path is missing`},
		{"empty abstract", "unix", "@", none(), `bind unix @: a name or a path is missing`},
		{"NUL", "unix", "/tmp/a\x00b", none(), "bind unix /tmp/a\x00b: a path cannot contain NUL"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b, err := Bind(row.network, row.address, row.o)
			if err == nil {
				b.close()
				t.Fatal("bound")
			}
			if err.Error() != row.want {
				t.Errorf("got  %s\nwant %s", err, row.want)
			}
			if e := new(BindError); !errors.As(err, &e) {
				t.Error("is no BindError")
			}
		})
	}
}

// One table of a unit file may list addresses of both families.
func TestBindIPv6OnlyMeansNothingForIPv4(t *testing.T) {
	o := none()
	o.IPv6Only = true
	b, err := Bind("tcp", "127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	b.close()
}

// Groups that ask for any port get a port each: with SO_REUSEPORT set before bind
// the kernel may give two of one user the same.
func TestBindAnyPortWithSiblings(t *testing.T) {
	o := none()
	o.ReusePort = true
	const groups = 500
	for _, network := range []string{"tcp", "udp"} {
		ports := map[string]bool{}
		for range groups {
			first, err := Bind(network, "127.0.0.1:0", o)
			if err != nil {
				t.Fatal(err)
			}
			defer first.close()
			if ports[first.Address] {
				t.Fatalf("%s %s was given to two groups", network, first.Address)
			}
			ports[first.Address] = true
			second, err := Bind(network, first.Address, o)
			if err != nil {
				t.Fatalf("no sibling: %v", err)
			}
			second.close()
		}
	}
}

func TestBindPrivilegedPort(t *testing.T) {
	needRoot(t)
	first, ok := sysctlNumber("net/ipv4/ip_unprivileged_port_start")
	if !ok || first < 82 {
		t.Skip("this machine has no privileged ports")
	}
	out, _ := bindElsewhere(t, bindJob{UID: 65534, Network: "tcp", Address: "127.0.0.1:81", Options: none()})
	want := "bind tcp 127.0.0.1:81: permission denied (ports under 1024 need CAP_NET_BIND_SERVICE; or lower net.ipv4.ip_unprivileged_port_start)"
	if first == 1024 && out.Err != want {
		t.Errorf("got  %s\nwant %s", out.Err, want)
	}
}

// A failed Bind leaves no descriptor behind.
func TestBindLeaksNothing(t *testing.T) {
	held := mustBind(t, "tcp", "127.0.0.1:0", none())
	before := openSockets(t)
	for range 50 {
		Bind("tcp", held.Address, none())
		Bind("tcp", "192.0.2.1:80", none())
		Bind("unix", "/proc/nowhere/socket", none())
		Bind("unix", "/", none())
	}
	if after := openSockets(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestBindWithoutDescriptors(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	tight := limit
	tight.Cur = 3
	limitDescriptors(t, &tight)
	_, tcp := Bind("tcp", "127.0.0.1:0", none())
	_, path := Bind("unix", "/nowhere", none())
	limitDescriptors(t, &limit)
	const end = ": too many open files (raise the limit of open files: LimitNOFILE=, ulimit -n)"
	if tcp == nil || tcp.Error() != "socket tcp 127.0.0.1:0"+end || path == nil || path.Error() != "socket unix /nowhere"+end {
		t.Errorf("%v; %v", tcp, path)
	}
}

// openSockets counts the sockets in this process's table. Other kinds come and go
// with the runtime.
func openSockets(t *testing.T) int {
	t.Helper()
	return countLinks(t, "socket:")
}

func FuzzTargets(f *testing.F) {
	for _, s := range []string{":80", "[::]:80", "127.0.0.1:0", "localhost:1", "[fe80::1%lo]:9", "[::ffff:1.2.3.4]:5", "", ":", "[", "a:b:c", "[::1]:65536"} {
		f.Add("tcp", s, false)
	}
	f.Add("udp6", "[ff02::1%eth0]:5353", true)
	f.Fuzz(func(t *testing.T, network, address string, only bool) {
		switch network {
		case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		default:
			network = "tcp"
		}
		list, err := targets(network, address, only)
		if (err == nil) != (len(list) > 0) {
			t.Fatalf("%d targets and error %v", len(list), err)
		}
		for _, x := range list {
			if !x.addr.IsValid() || x.addr.Addr().Is4() != (x.family == unix.AF_INET) {
				t.Errorf("%s %q: family %d for %v", network, address, x.family, x.addr)
			}
			if only && x.family == unix.AF_INET6 && !x.v6only { // of an IPv4 address it means nothing
				t.Errorf("%s %q: ipv6_only is lost", network, address)
			}
			if strings.HasSuffix(network, "4") && x.family != unix.AF_INET || strings.HasSuffix(network, "6") && !x.v6only {
				t.Errorf("%s %q: %+v", network, address, x)
			}
		}
	})
}
