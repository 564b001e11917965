package sys

import (
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestQueueOfListeners(t *testing.T) {
	for _, row := range []struct{ network, address string }{
		{"tcp", "127.0.0.1:0"}, {"tcp", "[::]:0"},
		{"unix", filepath.Join(t.TempDir(), "s")}, {"unixpacket", "@sockd-test-" + randomHex(8)},
	} {
		t.Run(row.network+" "+row.address, func(t *testing.T) {
			needIPv6For(t, row.address)
			o := none()
			o.Backlog = 9
			b := mustBind(t, row.network, row.address, o)
			for want := range 4 {
				awaitQueued(t, b.FD, want)
				if queued, backlog, drops, err := Queue(b.FD); queued != want || backlog != 9 || drops != 0 || err != nil {
					t.Errorf("queued %d of %d, drops %d, %v; want %d of 9", queued, backlog, drops, err, want)
				}
				defer unix.Close(dialRaw(t, b))
			}
			acceptOne(t, b)
			if queued, _, _, err := Queue(b.FD); queued != 3 || err != nil {
				t.Errorf("queued %d after an accept, want 3, %v", queued, err)
			}
		})
	}
}

// awaitQueued waits until so many are in a queue: a client may know of it a little earlier.
func awaitQueued(t *testing.T, fd, n int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(longWait); ; <-tick.C {
		if queued, _, _, err := Queue(fd); err != nil || queued >= n {
			return
		}
		if time.Now().After(late) {
			t.Fatalf("%d have not come", n)
		}
	}
}

// A full backlog is counted on the very listener.
func TestQueueCountsDrops(t *testing.T) {
	o := none()
	o.Backlog = 1
	b := mustBind(t, "tcp", "127.0.0.1:0", o)
	sa, _ := unix.Getsockname(b.FD)
	for range 6 { // one more than the backlog is let in
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		unix.Connect(fd, sa)
	}
	awaitQueued(t, b.FD, 2)
	if queued, backlog, drops, err := Queue(b.FD); queued != 2 || backlog != 1 || drops < 1 || err != nil {
		t.Errorf("queued %d of %d, drops %d, %v; want 2 of 1 and drops", queued, backlog, drops, err)
	}
}

func TestQueueOfDatagrams(t *testing.T) {
	o := none()
	o.ReceiveBuffer = 4096
	b := mustBind(t, "udp", "127.0.0.1:0", o)
	client := dialRaw(t, b)
	defer unix.Close(client)
	if queued, backlog, drops, err := Queue(b.FD); queued != 0 || backlog != 8192 || drops != 0 || err != nil {
		t.Errorf("empty: %d of %d, %d, %v", queued, backlog, drops, err)
	}
	const sent = 100
	for range sent {
		if _, err := unix.Write(client, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	queued, _, drops, err := Queue(b.FD)
	if queued == 0 || drops == 0 || err != nil {
		t.Fatalf("full: %d, %d, %v", queued, drops, err)
	}
	kept := 0
	for buf := make([]byte, 200); ; kept++ {
		if _, _, err := unix.Recvfrom(b.FD, buf, unix.MSG_DONTWAIT); err == unix.EAGAIN {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if kept+int(drops) != sent {
		t.Errorf("%d kept and %d dropped of %d", kept, drops, sent)
	}

	gram := mustBind(t, "unixgram", "@sockd-test-"+randomHex(8), none())
	from := dialRaw(t, gram)
	defer unix.Close(from)
	if queued, _, _, err := Queue(gram.FD); queued != 0 || err != nil {
		t.Errorf("unixgram: %d, %v", queued, err)
	}
	unix.Write(from, make([]byte, 33))
	if queued, _, _, err := Queue(gram.FD); queued != 33 || err != nil {
		t.Errorf("unixgram: %d, want 33, %v", queued, err)
	}
}

func TestQueueOfAShutListener(t *testing.T) {
	b := mustBind(t, "tcp", "127.0.0.1:0", none())
	unix.Shutdown(b.FD, unix.SHUT_RD)
	if queued, backlog, _, err := Queue(b.FD); queued != 0 || backlog != 0 || err != nil {
		t.Errorf("%d of %d, %v", queued, backlog, err)
	}
}

func TestIdentityOfASocket(t *testing.T) {
	a := mustBind(t, "tcp", "127.0.0.1:0", none())
	b := mustBind(t, "tcp", "127.0.0.1:0", none())
	dup, err := unix.FcntlInt(uintptr(a.FD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dup)
	for name, read := range map[string]func(int) (uint64, error){"cookie": Cookie, "inode": Inode} {
		first, err := read(a.FD)
		if err != nil || first == 0 {
			t.Errorf("%s %d, %v", name, first, err)
		}
		if same, _ := read(dup); same != first {
			t.Errorf("%s of a duplicate: %d, want %d", name, same, first)
		}
		if other, _ := read(b.FD); other == first {
			t.Errorf("two sockets have %s %d", name, other)
		}
	}
	if _, err := Cookie(-1); err != unix.EBADF {
		t.Errorf("cookie of nothing: %v", err)
	}
	if _, _, _, err := Queue(-1); err != unix.EBADF {
		t.Errorf("queue of nothing: %v", err)
	}
}
