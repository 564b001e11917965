package keeper_test

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// What waits for others is not heard of, and then all of it in order.
func TestRequestsWaitForOthers(t *testing.T) {
	l := newLocal(t, keeper.Options{})
	r := keeper.Served(t, l)
	inventory := func() keeper.Inventory {
		t.Helper()
		inv, err := l.Inventory()
		ok(t, err)
		return inv
	}
	for _, end := range []struct {
		name string
		send func() error
	}{
		{"a start", func() error { return r.Spawn(id("web", 1), shell("exec sleep 1000")) }},
		{"a question", r.Settle},
		{"flush", r.Flush},
		{"uncork", r.Uncork},
	} {
		t.Run(end.name, func(t *testing.T) {
			r.Cork()
			first, _ := pair(t)
			second, _ := pair(t)
			ok(t, r.Hold("one", first))
			ok(t, r.Save("web", []byte(end.name)))
			ok(t, r.Save("gone", []byte(end.name)))
			ok(t, r.Save("gone", nil))
			if inv := inventory(); string(inv.States["web"]) == end.name {
				t.Fatal("heard of already")
			}
			ok(t, end.send())
			ok(t, r.Settle())
			inv := inventory()
			if _, held := inv.Descriptors["one"]; !held || string(inv.States["web"]) != end.name || inv.States["gone"] != nil {
				t.Errorf("%+v", inv)
			}
			// What replaces and releases what waits finds it held.
			ok(t, r.Hold("one", second))
			ok(t, r.Release("one"))
			ok(t, r.Settle())
			if _, held := inventory().Descriptors["one"]; held {
				t.Error("held still")
			}
			ok(t, r.Uncork())
		})
	}
	ok(t, r.Signal(id("web", 1), unix.SIGKILL))
	for next(t, r).Kind == keeper.Execed {
	}
}

// A message of several is done up to what makes no sense, and leaves nothing open.
func TestBatchThatMakesNoSense(t *testing.T) {
	files := func(n int) (fds []int) {
		for range n {
			fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			ok(t, err)
			fds = append(fds, fd)
		}
		return fds
	}
	for _, row := range []struct {
		name      string
		cut, fds  int
		wantErr   bool
		wantHeld  []string
		wantState bool
	}{
		{"whole", 0, 2, false, []string{"a", "b"}, true},
		{"cut off", 1, 2, true, []string{"a", "b"}, false},
		{"a descriptor too few", 0, 1, true, []string{"a"}, false},
		{"a descriptor too many", 0, 3, true, []string{"a", "b"}, true},
		{"no descriptors", 0, 0, true, nil, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLocal(t, keeper.Options{})
			p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			ok(t, err)
			defer unix.Close(p[1])
			s, err := keeper.NewFuzzSession(l, p[0])
			ok(t, err)
			o, body := keeper.Batched("web", row.cut, "a", "b")
			fds := files(row.fds)
			numbers := slices.Clone(fds)
			if err := s.Handle(o, body, fds); (err != nil) != row.wantErr {
				t.Error(err)
			}
			inv, err := l.Inventory()
			ok(t, err)
			held := []string{}
			for name, fd := range inv.Descriptors {
				held = append(held, name)
				numbers = slices.DeleteFunc(numbers, func(n int) bool { return n == fd })
			}
			slices.Sort(held)
			if !slices.Equal(held, row.wantHeld) || (inv.States["web"] != nil) != row.wantState {
				t.Errorf("held: %v, states: %v", held, inv.States)
			}
			for _, fd := range numbers { // moved, or to be closed
				if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
					t.Errorf("descriptor %d is open", fd)
				}
			}
		})
	}
}
