package steer

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must come.
const patience = 60 * time.Second

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
	tick := time.NewTicker(time.Millisecond) // clients may know of it a little earlier
	defer tick.Stop()
	for late := time.Now().Add(patience); ; <-tick.C {
		got := w.synRecv()
		if got == n {
			break
		}
		if time.Now().After(late) {
			w.t.Fatalf("%d connections are half open, want %d", got, n)
		}
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
