package steer

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// A world is what a story happens in: a group and clients. There are two kinds, the
// kernel's and the fake's.
type world interface {
	group() Group
	// connect lets n clients come, which wait.
	connect(n int)
	// halfOpen lets n clients come half-way; finish brings them in.
	halfOpen(n int) (finish func())
	// serve takes want waiting clients, and tells how many each place had. It fails
	// the test if they do not come.
	serve(want int) []int
	// lost is how many clients were reset, of all that have come.
	lost() int
	// waiting is the length of a place's queue.
	waiting(place int) int
	listening(place int) bool
	// join gives a place a new socket.
	join(place int) error
}

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

// answer waits for the byte that a client is served with.
func answer(fd int) error {
	var b [1]byte
	for {
		n, err := unix.Read(fd, b[:])
		switch {
		case err == unix.EINTR: // the runtime's own signals, as there is a time limit
		case err != nil:
			return fmt.Errorf("read: %w", err)
		case n == 0:
			return errors.New("read: closed without an answer")
		default:
			return nil
		}
	}
}

// A kernelWorld is a real group in a namespace of its own.
type kernelWorld struct {
	t       testing.TB
	address *address
	fds     []int
	g       Group
	options []func(fd int)
	clients []int
	n       int
	gone    int
}

// newKernelWorld opens a group of n sockets; it skips where the level cannot be had.
func newKernelWorld(t testing.TB, network string, n int, level Level, migrate bool, o Options, options ...func(int)) *kernelWorld {
	t.Helper()
	namespace(t)
	migration(t, migrate)
	return newWorldHere(t, network, n, level, o, options...)
}

func newWorldHere(t testing.TB, network string, n int, level Level, o Options, options ...func(int)) *kernelWorld {
	t.Helper()
	w := &kernelWorld{t: t, address: addressOf(network), options: options}
	for range n {
		w.fds = append(w.fds, w.address.socket(t, options...))
	}
	var err error
	w.g, err = Open(w.fds, level, o)
	must(t, err)
	t.Cleanup(func() { w.g.Close() })
	need(t, w.g, level)
	t.Cleanup(func() {
		for _, fd := range w.clients {
			unix.Close(fd)
		}
	})
	return w
}

// need skips a test where the machine does not allow the level. Where it does, and the
// group has another level all the same, it fails.
func need(t testing.TB, g Group, level Level) {
	t.Helper()
	if g.Level() == level {
		return
	}
	for _, l := range Probe().Levels {
		var errno syscall.Errno
		if l.Level == level && errors.As(l.Err, &errno) {
			t.Skipf("level %s is not to be had here: %s", level, l.Failed)
		}
	}
	t.Fatalf("level %s, want %s: %s", g.Level(), level, g.Why())
}

func (w *kernelWorld) group() Group { return w.g }

// halfOpenMeans is what halfOpen needs: a listener that takes no notice of the last
// packet of the handshake. The request stays half open in it until there are data
// (tcp(7), TCP_DEFER_ACCEPT), while the client believes that it is connected.
func halfOpenMeans(fd int) {
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30)
}

func (w *kernelWorld) come(n int) []int {
	w.t.Helper()
	first := len(w.clients)
	for range n {
		fd, err := w.address.dial(w.n)
		must(w.t, err)
		w.n++
		w.clients = append(w.clients, fd)
	}
	return w.clients[first:]
}

func (w *kernelWorld) connect(n int) {
	w.t.Helper()
	w.speak(w.come(n))
}

func (w *kernelWorld) speak(clients []int) {
	for _, fd := range clients {
		unix.Write(fd, []byte("x")) // that it was reset is for lost to find out
	}
}

func (w *kernelWorld) halfOpen(n int) func() {
	w.t.Helper()
	clients := append([]int(nil), w.come(n)...)
	if got := w.synRecv(); got != n {
		w.t.Fatalf("%d connections are half open, want %d", got, n)
	}
	return func() { w.speak(clients) }
}

// synRecv counts the requests that the kernel has half open.
func (w *kernelWorld) synRecv() (n int) {
	for _, file := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile("/proc/thread-self/net/" + file)
		must(w.t, err)
		for _, line := range strings.Split(string(text), "\n") {
			if f := strings.Fields(line); len(f) > 3 && f[3] == "03" {
				n++
			}
		}
	}
	return n
}

func (w *kernelWorld) serve(want int) []int {
	w.t.Helper()
	by := make([]int, len(w.fds))
	poll := make([]unix.PollFd, len(w.fds))
	for i, fd := range w.fds {
		poll[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	for deadline := time.Now().Add(patience); want > 0 && time.Now().Before(deadline); {
		if _, err := unix.Poll(poll, 100); err != nil && err != unix.EINTR {
			w.t.Fatal(err)
		}
		for i, fd := range w.fds {
			for {
				c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
				if err != nil {
					break
				}
				unix.Write(c, []byte("y"))
				unix.Close(c)
				by[i]++
				want--
			}
		}
	}
	if want != 0 {
		w.t.Errorf("%d clients too few (served by place: %v)", want, by)
	}
	w.settleClients()
	return by
}

// settleClients hears what became of every client that has come.
func (w *kernelWorld) settleClients() {
	for _, fd := range w.clients {
		if err := answer(fd); err != nil {
			w.gone++
			w.t.Logf("a client was lost: %v", err)
		}
		unix.Close(fd)
	}
	w.clients = nil
}

func (w *kernelWorld) lost() int { return w.gone }

func (w *kernelWorld) waiting(place int) int {
	_, n, _, err := kernel{}.look(w.fds[place])
	must(w.t, err)
	return n
}

func (w *kernelWorld) listening(place int) bool {
	on, _, _, err := kernel{}.look(w.fds[place])
	must(w.t, err)
	return on
}

func (w *kernelWorld) join(place int) error {
	fd := w.address.socket(w.t, w.options...)
	for len(w.fds) <= place {
		w.fds = append(w.fds, -1)
	}
	w.fds[place] = fd
	return w.g.Join(place, fd)
}
