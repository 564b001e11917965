package keeper

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

func wires(t *testing.T) (a, b *wire) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		a, err = newWire(pair[0])
	}
	if err == nil {
		b, err = newWire(pair[1])
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.close(); b.close() })
	return a, b
}

// pending counts what a poller such as Go's would be woken by.
func pending(t *testing.T, epoll int) int {
	t.Helper()
	n, err := unix.EpollWait(epoll, make([]unix.EpollEvent, 8), 0)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Whoever has said something is not woken by its being heard.
func TestHearingWakesNobody(t *testing.T) {
	a, b := wires(t)
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(epoll)
	raw, err := a.ready.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { // as package runtime does it
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff})
	})
	if err != nil {
		t.Fatal(err)
	}
	pending(t, epoll)
	if err := a.write(message{op: opAgain}); err != nil {
		t.Fatal(err)
	}
	if m, err := b.read(); err != nil || m.op != opAgain {
		t.Fatal(m, err)
	}
	if n := pending(t, epoll); n != 0 {
		t.Errorf("woken %d times", n)
	}
	if err := b.write(message{op: opWelcome}); err != nil {
		t.Fatal(err)
	}
	if n := pending(t, epoll); n != 1 {
		t.Errorf("woken %d times by what is to be heard", n)
	}
}

// A writer whom nobody reads waits, and no longer than until the wire is closed.
func TestCloseEndsAWriter(t *testing.T) {
	a, b := wires(t)
	ended := make(chan error)
	go func() {
		m := message{op: opWrite, body: make([]byte, maxFrame/2)}
		for {
			if err := a.write(m); err != nil {
				ended <- err
				return
			}
		}
	}()
	for full := false; !full; { // until there is no room
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(a.number()), Events: unix.POLLOUT}}, 0)
		full = err == nil && n == 0
	}
	a.close()
	if err := <-ended; err == nil {
		t.Error("no error")
	}
	for { // the other side reads what there was, and then the end
		if _, err := b.read(); err != nil {
			break
		}
	}
}

// Who dies with news unread is heard to his last word: what he had saved and acknowledged
// is so.
func TestLastWordsOfWhoHasNotReadAll(t *testing.T) {
	a, b := wires(t)
	for _, w := range []*wire{a, b} {
		if err := w.write(message{op: opAgain}); err != nil {
			t.Fatal(err)
		}
	}
	b.close()
	if m, err := a.read(); err != nil || m.op != opAgain {
		t.Errorf("heard %v, %v", m, err)
	}
	if m, err := a.read(); err != net.ErrClosed {
		t.Errorf("then %v, %v", m, err)
	}
}
