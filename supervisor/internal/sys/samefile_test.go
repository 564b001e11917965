package sys

import (
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// awaitAside returns when everything given to CloseAside is closed.
func awaitAside(t *testing.T) {
	t.Helper()
	for late := time.Now().Add(time.Minute); ; runtime.Gosched() {
		aside.mu.Lock()
		running := aside.running
		aside.mu.Unlock()
		if !running {
			return
		}
		if time.Now().After(late) {
			t.Fatal("descriptors are not closed")
		}
	}
}

func duplicate(t *testing.T, fd int) int {
	t.Helper()
	other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(other) })
	return other
}

func TestSameFile(t *testing.T) {
	made := map[string][2]int{} // two of a kind that are not the same
	two := func(name string, open func() (int, error)) {
		var pair [2]int
		for i := range pair {
			fd, err := open()
			if err != nil {
				t.Fatal(name, err)
			}
			t.Cleanup(func() { unix.Close(fd) })
			pair[i] = fd
		}
		made[name] = pair
	}
	two("memfd", func() (int, error) { return unix.MemfdCreate("x", unix.MFD_CLOEXEC) })
	two("eventfd", func() (int, error) { return unix.Eventfd(0, unix.EFD_CLOEXEC) })
	two("tcp", func() (int, error) { return unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) })
	two("unix", func() (int, error) { return unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) })
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	made["both ends of a pipe"] = p
	for name, pair := range made {
		again := duplicate(t, pair[0])
		if !SameFile(pair[0], again) || !SameFile(pair[1], pair[1]) {
			t.Errorf("%s: a duplicate is another file", name)
		}
		if SameFile(pair[0], pair[1]) {
			t.Errorf("%s: two files are one", name)
		}
		// Without the kernel's help an eventfd is never the same; the rest is as good.
		if looksSame(pair[0], again) == (name == "eventfd") || looksSame(pair[0], pair[1]) {
			t.Errorf("%s: looks are deceptive", name)
		}
	}
}

func TestStorable(t *testing.T) {
	open := func(fd int, err error) int {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	for _, row := range []struct {
		name string
		fd   int
		want string
	}{
		{"memfd", open(unix.MemfdCreate("x", unix.MFD_CLOEXEC)), ""},
		{"socket", open(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)), ""},
		{"eventfd", open(unix.Eventfd(0, unix.EFD_CLOEXEC)), ""},
		{"pidfd", open(unix.PidfdOpen(os.Getpid(), 0)), ""},
		{"folder", open(unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_CLOEXEC, 0)), ""},
		{"device", open(unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)), "it is a device"},
		{"epoll", open(unix.EpollCreate1(unix.EPOLL_CLOEXEC)), "it is an epoll instance"},
	} {
		got := ""
		if err := Storable(row.fd); err != nil {
			got = err.Error()
		}
		if got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}

func TestHungup(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.ArmHangup(pair[0], 7); err != nil {
		t.Fatal(err)
	}
	unix.Write(pair[1], []byte("data is no hang-up"))
	if Hungup(pair[0]) {
		t.Error("hung up while the other end is open")
	}
	unix.Close(pair[1])
	keys := make([]uint64, 1)
	if n, err := w.Wait(keys); n != 1 || err != nil || keys[0] != 7 || !Hungup(pair[0]) {
		t.Errorf("%d keys, %v, hung up %v", n, err, Hungup(pair[0]))
	}
}

// A close that lasts keeps nobody waiting: the kernel is asked to linger on a
// connection whose other end does not read.
func TestCloseAsideDoesNotWait(t *testing.T) {
	ln, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ln)
	if err := unix.Bind(ln, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(ln, 1); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(ln)
	if err != nil {
		t.Fatal(err)
	}
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(c, at); err != nil {
		t.Fatal(err)
	}
	far, _, err := unix.Accept4(ln, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(c, true); err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 64<<10); ; {
		if _, err := unix.Write(c, block); err == unix.EAGAIN {
			break
		}
	}
	if err := unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 60}); err != nil {
		t.Fatal(err)
	}
	CloseAside(c) // would last a minute
	aside.mu.Lock()
	busy := aside.running
	aside.mu.Unlock()
	if !busy {
		t.Error("the close did not wait: the test shows nothing")
	}
	unix.Close(far) // with unread data: a reset
	awaitAside(t)
}
