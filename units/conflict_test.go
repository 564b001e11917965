package units

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// bind does what the socket says with raw system calls.
func bind(sock *Socket, a Address, port int) (fd int, err error) {
	e := sock.endpoint(a)
	family, typ := unix.AF_INET6, unix.SOCK_STREAM
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: port}
	switch {
	case e.v4 && !e.v6:
		in := &unix.SockaddrInet4{Port: port}
		if e.ip.IsValid() {
			in.Addr = e.ip.As4()
		}
		family, sa = unix.AF_INET, in
	case e.ip.IsValid():
		sa = &unix.SockaddrInet6{Port: port, Addr: e.ip.As16()}
	}
	if !a.Stream() {
		typ = unix.SOCK_DGRAM
	}
	if fd, err = unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	set := func(level, option int, on bool) {
		if on && err == nil {
			err = unix.SetsockoptInt(fd, level, option, 1)
		}
	}
	set(unix.SOL_SOCKET, unix.SO_REUSEADDR, e.addr)
	set(unix.SOL_SOCKET, unix.SO_REUSEPORT, e.reusing)
	if family == unix.AF_INET6 && err == nil {
		only := 0
		if !e.v4 {
			only = 1
		}
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
	}
	if e.device != "" && err == nil {
		err = unix.BindToDevice(fd, e.device)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil && typ == unix.SOCK_STREAM {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Every pair of addresses and options is bound for real: what the check lets
// through is exactly what the kernel lets through.
func TestConflictsAgreeWithTheKernel(t *testing.T) {
	hosts := []string{"tcp4://", "tcp://0.0.0.0", "tcp://127.0.0.1", "tcp://127.0.0.2"}
	if l, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		l.Close()
		hosts = append(hosts, "tcp://", "tcp6://", "tcp://[::]", "tcp://[::1]", "only tcp://[::]", "only tcp://")
	} else {
		t.Log("without IPv6:", err)
	}
	type socketAt struct {
		host string
		sock *Socket
	}
	var all []socketAt
	for _, host := range hosts {
		rest, only := strings.CutPrefix(host, "only ")
		for i := range 8 {
			s := newSocket("s")
			s.IPv6Only, s.ReuseAddr, s.ReusePort = only, ptr(i&1 != 0), i&2 != 0
			if i&4 != 0 {
				s.BindToDevice = "lo"
			}
			all = append(all, socketAt{rest, s})
		}
	}
	pairs, busy := 0, 0
	for _, proto := range []string{"tcp", "udp"} {
		for _, a := range all {
			for _, b := range all {
				pairs++
				var want, got bool
				// Somebody else may have the port: then another port agrees.
				for range 4 {
					var err error
					if want, got, err = together(proto, a.host, b.host, a.sock, b.sock); err != nil {
						t.Skip("cannot bind here: ", err)
					}
					if want == got {
						break
					}
					busy++
				}
				if want != got {
					t.Errorf("%s: %s %s and %s %s: the kernel permits it: %v, the check: %v", proto, a.host, opts(a.sock), b.host, opts(b.sock), want, got)
				}
			}
		}
	}
	t.Logf("%d pairs, %d bound again on another port", pairs, busy)
}

func opts(s *Socket) string {
	return fmt.Sprintf("{ipv6_only %v reuse_addr %v reuse_port %v device %q}", s.IPv6Only, *s.ReuseAddr, s.ReusePort, s.BindToDevice)
}

// together says what the kernel thinks of the pair, and what the check does.
func together(proto, hostA, hostB string, a, b *Socket) (kernel, check bool, err error) {
	at := func(host string, port int) Address {
		addr, f := parseAddress(fmt.Sprintf("%s:%d", strings.Replace(host, "tcp", proto, 1), port), "/")
		if f != nil {
			panic(f)
		}
		return addr
	}
	port := free(at)
	fd, err := bind(a, at(hostA, port), port)
	if err != nil {
		return false, false, err
	}
	defer unix.Close(fd)
	other, err := bind(b, at(hostB, port), port)
	if err != nil && !errors.Is(err, unix.EADDRINUSE) {
		return false, false, err
	}
	if err == nil {
		unix.Close(other)
	}
	x, y := a.endpoint(at(hostA, port)), b.endpoint(at(hostB, port))
	return err == nil, !x.overlaps(y) || x.share(y), nil
}

// free finds a port that nobody has at any address. It is one below those that the
// kernel gives away. Port 0 would not do: with the options on, the kernel prefers
// ports that others have.
func free(at func(host string, port int) Address) int {
	for {
		port := 10_000 + rand.IntN(20_000)
		taken := false
		for _, host := range []string{"tcp4://", "tcp6://"} {
			fd, err := bind(&Socket{ReuseAddr: ptr(false)}, at(host, port), port)
			if err == nil {
				unix.Close(fd)
			}
			taken = taken || errors.Is(err, unix.EADDRINUSE)
		}
		if !taken {
			return port
		}
	}
}

func TestUnixConflictsAgreeWithTheKernel(t *testing.T) {
	networks := []string{"unix", "unixgram", "unixpacket"}
	types := []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET}
	dir := t.TempDir()
	for i := range networks {
		for j := range networks {
			for k, path := range []string{fmt.Sprintf("%s/%d%d", dir, i, j), fmt.Sprintf("@sockd-test-%s-%d%d", dir[max(0, len(dir)-40):], i, j)} {
				var errs [2]error
				for n, typ := range []int{types[i], types[j]} {
					fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
					if err != nil {
						t.Fatal(err)
					}
					defer unix.Close(fd)
					errs[n] = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
				}
				if errs[0] != nil {
					t.Fatal(k, errs[0])
				}
				s := newSocket("s")
				a, b := s.endpoint(Address{networks[i], path}), s.endpoint(Address{networks[j], path})
				if kernel, check := errs[1] == nil, !a.overlaps(b) || a.share(b); kernel != check {
					t.Errorf("%s and %s at %s: the kernel permits it: %v, the check: %v", networks[i], networks[j], path, kernel, check)
				}
			}
		}
	}
}

func TestNoConflict(t *testing.T) {
	for name, files := range map[string][]file{
		"UDP by address, with reuse_addr": {
			{"all.toml", "[socket.s]\nlisten = \"udp://0.0.0.0:5000\"\nreuse_addr = true"},
			{"one.toml", "[socket.s]\nlisten = \"udp://127.0.0.1:5000\"\nreuse_addr = true"}},
		"UDP by address, with reuse_port": {
			{"all.toml", "[socket.s]\nlisten = \"udp://0.0.0.0:5000\"\nreuse_port = true"},
			{"one.toml", "[socket.s]\nlisten = \"udp://127.0.0.1:5000\"\nreuse_port = true"}},
		"multicast receivers": {
			{"a.toml", "[socket.s]\nlisten = \"udp://239.1.2.3:5000\"\nreuse_addr = true"},
			{"b.toml", "[socket.s]\nlisten = \"udp://239.1.2.3:5000\"\nreuse_addr = true"},
			{"c.toml", "[socket.s]\nlisten = \"udp://239.1.2.4:5000\""}},
		"per instance and reuse_port": {
			{"a.toml", "[service]\nexec = \"a\"\n[socket.s]\nlisten = \":80\"\nper_instance = true"},
			{"b.toml", "[socket.s]\nlisten = \"127.0.0.1:80\"\nreuse_port = true"}},
		"TCP and UDP": {
			{"a.toml", "[socket.s]\nlisten = [\"tcp://:53\", \"udp://:53\"]"}},
		"free ports": {
			{"a.toml", "[socket.a]\nlisten = \":0\"\n[socket.b]\nlisten = \":0\""},
			{"b.toml", "[socket.a]\nlisten = \":0\""}},
		"two devices": {
			{"a.toml", "[socket.a]\nlisten = \":80\"\nbind_to_device = \"eth0\"\n[socket.b]\nlisten = \":80\"\nbind_to_device = \"eth1\""}},
		"the families apart": {
			{"a.toml", "[socket.a]\nlisten = [\"tcp://0.0.0.0:80\", \"tcp://[::]:80\"]\nipv6_only = true"},
			{"b.toml", "[socket.a]\nlisten = [\"tcp4://:81\", \"tcp6://:81\"]"}},
	} {
		if err := problemsOf(files); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
