package sys

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// longWait bounds every wait of a test. It is never waited out when all is well.
const longWait = 60 * time.Second

// A watchCase waits in one goroutine and hands on what it hears.
type watchCase struct {
	*testing.T
	w    *Watcher
	news chan uint64
	end  chan error
}

func newWatchCase(t *testing.T) *watchCase {
	t.Helper()
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	c := &watchCase{t, w, make(chan uint64, 1<<16), make(chan error, 1)}
	go func() {
		keys := make([]uint64, 64)
		for {
			n, err := w.Wait(keys)
			if err != nil {
				c.end <- err
				return
			}
			for _, k := range keys[:n] {
				c.news <- k
			}
		}
	}()
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-c.end; !errors.Is(err, os.ErrClosed) {
			t.Errorf("Wait ended with %v", err)
		}
	})
	return c
}

func (c *watchCase) arm(fd int, key uint64) {
	c.Helper()
	if err := c.w.Arm(fd, key); err != nil {
		c.Fatal(err)
	}
}

func (c *watchCase) want(key uint64) {
	c.Helper()
	select {
	case got := <-c.news:
		if got != key {
			c.Fatalf("heard %d, want %d", got, key)
		}
	case <-time.After(longWait):
		c.Fatalf("nothing heard, want %d", key)
	}
}

// quiet proves that nothing is to be heard: news that is asked for now comes alone.
func (c *watchCase) quiet() {
	c.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		c.Fatal(err)
	}
	defer unix.Close(p[0])
	unix.Close(p[1])
	c.arm(p[0], 1<<63)
	c.want(1 << 63)
	if err := c.w.Remove(p[0]); err != nil {
		c.Fatal(err)
	}
}

func acceptOne(t testing.TB, b *Bound) {
	t.Helper()
	fd, _, err := unix.Accept(b.FD)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
}

// A crowd at the door is one event; arming again while somebody waits fires at once,
// and does not when all have been let in.
func TestWatchOneShot(t *testing.T) {
	c := newWatchCase(t)
	b := mustBind(t, "tcp", "127.0.0.1:0", none())
	c.arm(b.FD, 7)
	c.quiet()
	for range 3 {
		defer unix.Close(dialRaw(t, b))
	}
	c.want(7)
	c.quiet()
	c.arm(b.FD, 8)
	c.want(8)
	for range 3 {
		acceptOne(t, b)
	}
	c.arm(b.FD, 9)
	c.quiet()
	defer unix.Close(dialRaw(t, b))
	c.want(9)
}

func TestWatchDisarm(t *testing.T) {
	c := newWatchCase(t)
	b := mustBind(t, "tcp", "127.0.0.1:0", none())
	c.arm(b.FD, 1)
	if err := c.w.Disarm(b.FD); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dialRaw(t, b))
	c.quiet()
	for range 2 { // of one that is not armed: no error
		if err := c.w.Disarm(b.FD); err != nil {
			t.Fatal(err)
		}
	}
	c.arm(b.FD, 2)
	c.want(2)
}

// An event that the kernel has handed out already is dropped if its descriptor has
// been disarmed since, or armed again under another key.
func TestWatchDropsStaleEvents(t *testing.T) {
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	unix.Close(p[1])
	fetch := func() []unix.EpollEvent {
		events := make([]unix.EpollEvent, 4)
		n, err := unix.EpollWait(w.epoll, events, 0)
		if err != nil || n != 1 {
			t.Fatalf("%d events, %v", n, err)
		}
		return events[:n]
	}
	keys := make([]uint64, 4)
	for _, row := range []struct {
		name   string
		change func()
	}{
		{"disarmed", func() { w.Disarm(p[0]) }},
		{"removed", func() { w.Remove(p[0]) }},
		{"armed again", func() { w.Arm(p[0], 2) }},
	} {
		if err := w.Arm(p[0], 1); err != nil {
			t.Fatal(err)
		}
		events := fetch()
		row.change()
		if n, err := w.collect(events, keys); n != 0 || err != nil {
			t.Errorf("%s: %d stale events, %v", row.name, n, err)
		}
	}
	if n, err := w.collect(fetch(), keys); n != 1 || keys[0] != 2 || err != nil {
		t.Errorf("the live one: %d %d %v", n, keys[0], err)
	}
}

// shutdown(2) by a service acts on the held socket: it is told, seen and healed.
func TestWatchShutdownListener(t *testing.T) {
	c := newWatchCase(t)
	for i, network := range []string{"tcp", "unix"} {
		address := "127.0.0.1:0"
		if network == "unix" {
			address = "@sockd-test-" + randomHex(8)
		}
		b := mustBind(t, network, address, none())
		c.arm(b.FD, uint64(i))
		if err := unix.Shutdown(b.FD, unix.SHUT_RD); err != nil {
			t.Fatal(err)
		}
		c.want(uint64(i))
		listening, err := Listening(b.FD)
		if err != nil {
			t.Fatal(err)
		}
		if listening {
			t.Error("a shut down listener counts as listening")
		}
		if network == "unix" {
			if err := ListenAgain(b.FD, 0); !errors.Is(err, ErrShutDown) {
				t.Errorf("ListenAgain: %v", err)
			}
			continue
		}
		if err := ListenAgain(b.FD, 0); err != nil {
			t.Fatal(err)
		}
		if on, _ := Listening(b.FD); !on {
			t.Error("does not listen again")
		}
		c.arm(b.FD, 5)
		c.quiet()
		unix.Close(dialRaw(t, b))
		c.want(5)
	}
}

// A closed descriptor's number serves another socket, while somebody else still
// holds the old one: the news is of the new one only.
func TestWatchReusedNumber(t *testing.T) {
	c := newWatchCase(t)
	old := mustBind(t, "tcp", "127.0.0.1:0", none())
	c.arm(old.FD, 1)
	other, err := unix.FcntlInt(uintptr(old.FD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	fresh := mustBind(t, "tcp", "127.0.0.1:0", none())
	if err := unix.Dup3(fresh.FD, old.FD, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	c.arm(old.FD, 2)
	sa, _ := unix.Getsockname(other)
	client, _ := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	defer unix.Close(client)
	if err := unix.Connect(client, sa); err != nil {
		t.Fatal(err)
	}
	c.quiet()
	defer unix.Close(dialRaw(t, fresh))
	c.want(2)
}

func TestWatchErrors(t *testing.T) {
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Arm(-1, 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("Arm: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, waitErr := w.Wait(make([]uint64, 1))
	for name, err := range map[string]error{"Arm": w.Arm(0, 0), "Disarm": w.Disarm(0), "Close": w.Close(), "Wait": waitErr} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
}
