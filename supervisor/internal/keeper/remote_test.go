package keeper_test

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/sys"
)

// What one supervisor left, the next one finds.
func TestSupervisorsComeAndGo(t *testing.T) {
	const sockets = 500 // more than fit into one message
	var limit unix.Rlimit
	ok(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	if limit.Cur < 4*sockets {
		t.Skipf("limit of descriptors is %d", limit.Cur)
	}
	l := newLocal(t, keeper.Options{})
	first := keeper.Served(t, l)
	for i := range sockets {
		held, _ := pair(t)
		ok(t, first.Hold(string(rune('a'+i%26))+string(rune('0'+i/26)), held))
	}
	large := make([]byte, 300<<10)
	for i := range large {
		large[i] = byte(rand.Uint32())
	}
	ok(t, first.Save("web", large))
	ok(t, first.Save("empty", []byte{}))
	ok(t, first.Spawn(id("web", 7), shell("exit 3")))
	exited := next(t, first)
	for exited.Kind != keeper.Exited {
		exited = next(t, first)
	}
	ok(t, first.Close())

	second := keeper.Served(t, l)
	inv, err := second.Inventory()
	ok(t, err)
	if len(inv.Descriptors) != sockets || string(inv.States["web"]) != string(large) || inv.States["empty"] == nil {
		t.Fatalf("%d descriptors, %d bytes of state", len(inv.Descriptors), len(inv.States["web"]))
	}
	for name, fd := range inv.Descriptors {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if len(inv.Children) != 1 || inv.Children[0].ID != id("web", 7) || inv.Children[0].Running {
		t.Fatalf("%+v", inv.Children)
	}
	pending := inv.Children[0].Pending
	if last := pending[len(pending)-1]; last.Code != 3 || last.Kind != keeper.Exited {
		t.Fatalf("%+v", pending)
	}
	for _, ev := range pending {
		ok(t, second.Acknowledge(ev))
	}
	if list := children(t, second); len(list) != 0 {
		t.Fatalf("%+v", list)
	}
}

// The keeper may have less room than the supervisor that asks: it says so when it is
// asked, once, unless what it is about has been released.
func TestWhatCouldNotBeHeldIsSaid(t *testing.T) {
	l := newLocal(t, keeper.Options{NoCgroup: true})
	r := keeper.Served(t, l)
	var limit unix.Rlimit
	ok(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	hold := func(name string) (other *os.File) {
		t.Helper()
		held, other := pair(t)
		held = sys.High(held) // where the keeper puts its own: above it there is none lower
		low := limit
		low.Cur = uint64(held + 1 + keeper.Reserve - max(1, sys.FreeBeside(held, held+1))) // room for our descriptor, and not for the one that arrives
		ok(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
		defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
		ok(t, r.Hold(name, held))
		children(t, r) // it has been dealt with
		return other
	}
	first := hold("listen/web/a")
	if err := r.Settle(); err == nil || !strings.Contains(err.Error(), "hold listen/web/a") || !strings.Contains(err.Error(), "raise the limit") {
		t.Errorf("%v", err)
	}
	ok(t, r.Settle())
	hold("listen/web/b")
	ok(t, r.Release("listen/web/b"))
	ok(t, r.Settle())
	inv, err := l.Inventory()
	ok(t, err)
	if len(inv.Descriptors) > 0 {
		t.Errorf("held: %v", inv.Descriptors)
	}
	ok(t, r.Release("listen/web/a"))
	closed(t, first)
}

// Whatever a supervisor says, the keeper goes on and loses no descriptor.
func FuzzRequests(f *testing.F) {
	f.Add(byte(8), []byte("\x01x"), true)
	f.Add(byte(10), []byte("\x03web\x02\x01"), false)
	f.Add(byte(15), []byte("\x03web\x02\x03abc"), false)
	l, err := keeper.NewLocal(keeper.Options{NoCgroup: true})
	if err != nil {
		f.Fatal(err)
	}
	defer l.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		f.Fatal(err)
	}
	s, err := keeper.NewFuzzSession(l, pair[0])
	if err != nil {
		f.Fatal(err)
	}
	go func() { // somebody has to read the answers
		buf := make([]byte, 1<<16)
		for {
			if n, _ := unix.Read(pair[1], buf); n <= 0 {
				return
			}
		}
	}()
	f.Fuzz(func(t *testing.T, op byte, body []byte, withFD bool) {
		if op == 10 {
			return // spawning what chance says is not for this machine
		}
		var fds []int
		if withFD {
			fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			fds = []int{fd}
		}
		held := 0
		if inv, err := l.Inventory(); err == nil {
			held = len(inv.Descriptors)
		}
		err := s.Handle(op, body, fds)
		inv, _ := l.Inventory()
		if withFD && err != nil && len(inv.Descriptors) == held {
			if _, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GETFD, 0); err == nil {
				t.Fatalf("descriptor leaked by op %d", op)
			}
		}
		for name := range inv.Descriptors {
			l.Release(name)
		}
	})
}
