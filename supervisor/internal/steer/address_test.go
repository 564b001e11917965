package steer

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// inNamespace is set where the whole process has a network of its own already, and may
// not make another.
const inNamespace = "SOCKD_TEST_IN_NAMESPACE"

// namespace gives the test a network of its own, with loopback only, so that it may
// change sysctls and nobody else is there. The goroutine keeps its thread, which ends
// with it.
func namespace(t testing.TB) {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		return
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace: unshare: %v", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	must(t, err)
	lo.SetUint16(unix.IFF_UP)
	must(t, unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo))
}

func migration(t testing.TB, on bool) {
	t.Helper()
	value := "0"
	if on {
		value = "1"
	}
	if migrateReq() == on {
		return
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_migrate_req", []byte(value), 0); err != nil {
		t.Skipf("cannot set net.ipv4.tcp_migrate_req: %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// An address is how the sockets of a group are bound and how clients reach it.
type address struct {
	name    string
	typ     int
	bind    unix.Sockaddr
	clients []unix.Sockaddr // taken in turns
}

var loopback4 = [4]byte{127, 0, 0, 1}
var loopback6 = [16]byte{15: 1}

// addressOf makes "tcp4", "tcp6", "tcp" (both families), and the same of udp.
func addressOf(name string) *address {
	a := &address{name: name, typ: unix.SOCK_STREAM}
	if name[:3] == "udp" {
		a.typ = unix.SOCK_DGRAM
	}
	switch name[3:] {
	case "4":
		a.bind = &unix.SockaddrInet4{Addr: loopback4}
	case "6":
		a.bind = &unix.SockaddrInet6{Addr: loopback6}
	default:
		a.bind = &unix.SockaddrInet6{}
	}
	return a
}

// socket binds one more socket to the address; the first takes a free port.
func (a *address) socket(t testing.TB, options ...func(fd int)) int {
	t.Helper()
	domain := unix.AF_INET
	if _, v6 := a.bind.(*unix.SockaddrInet6); v6 {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, a.typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	if domain == unix.AF_INET6 {
		must(t, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0))
	}
	for _, set := range options {
		set(fd)
	}
	must(t, unix.Bind(fd, a.bind))
	if a.typ == unix.SOCK_STREAM {
		must(t, unix.Listen(fd, 4096))
	}
	if a.clients == nil {
		a.settle(t, fd)
	}
	return fd
}

func (a *address) settle(t testing.TB, fd int) {
	bound, err := unix.Getsockname(fd)
	must(t, err)
	switch b := bound.(type) {
	case *unix.SockaddrInet4:
		a.bind, a.clients = b, []unix.Sockaddr{b}
	case *unix.SockaddrInet6:
		a.bind, a.clients = b, []unix.Sockaddr{&unix.SockaddrInet6{Addr: loopback6, Port: b.Port}}
		if b.Addr == [16]byte{} {
			a.clients = append(a.clients, &unix.SockaddrInet4{Addr: loopback4, Port: b.Port})
		}
	}
}

// dial connects client number i. Closing it leaves nothing behind (SO_LINGER 0), so
// that tests do not run out of ports.
func (a *address) dial(i int) (int, error) {
	var to unix.Sockaddr
	domain := unix.AF_INET
	switch c := a.clients[i%len(a.clients)].(type) { // a copy: x/sys writes into what it is given
	case *unix.SockaddrInet4:
		to = &unix.SockaddrInet4{Addr: c.Addr, Port: c.Port}
	case *unix.SockaddrInet6:
		to = &unix.SockaddrInet6{Addr: c.Addr, Port: c.Port}
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, a.typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	limit := unix.NsecToTimeval(int64(patience))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err := unix.Connect(fd, to); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect: %w", err)
	}
	return fd, nil
}
