package sys

import (
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needDescriptors skips where the limit is too low. It is not raised: children would inherit that.
func needDescriptors(t testing.TB, n uint64) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur < n {
		t.Skipf("needs %d descriptors, the limit is %d", n, limit.Cur)
	}
}

// Ten thousand sockets, one goroutine; every one is heard once, under its own key.
func TestWatchTenThousand(t *testing.T) {
	const many = 10_000
	needDescriptors(t, many+1000)
	c := newWatchCase(t)
	var bound [many]*Bound
	defer func() {
		for _, b := range bound {
			if b != nil {
				syscall.Close(b.FD)
			}
		}
	}()
	for i := range bound {
		b, err := Bind("udp4", "127.0.0.1:0", none())
		if err != nil {
			t.Fatal(err)
		}
		bound[i] = b
		c.arm(b.FD, uint64(i))
	}
	c.quiet()
	for range 2 {
		sender, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range rand.Perm(many) {
			sa, _ := unix.Getsockname(bound[i].FD)
			if err := unix.Sendto(sender, []byte("x"), 0, sa); err != nil {
				t.Fatal(err)
			}
		}
		unix.Close(sender)
		heard := make(map[uint64]bool, many)
		deadline := time.After(longWait)
		for len(heard) < many {
			select {
			case k := <-c.news:
				if heard[k] {
					t.Fatalf("%d is heard twice", k)
				}
				heard[k] = true
			case <-deadline:
				t.Fatalf("%d of %d heard", len(heard), many)
			}
		}
		c.quiet()
		buf := make([]byte, 1)
		for i, b := range bound {
			if _, _, err := unix.Recvfrom(b.FD, buf, 0); err != nil {
				t.Fatal(err)
			}
			c.arm(b.FD, uint64(i))
		}
		c.quiet()
	}
}

// Arming and disarming from elsewhere while the watcher waits.
func TestWatchConcurrently(t *testing.T) {
	c := newWatchCase(t)
	var wg sync.WaitGroup
	for i := range 4 {
		b := mustBind(t, "tcp", "127.0.0.1:0", none())
		defer unix.Close(dialRaw(t, b))
		wg.Go(func() {
			for range 200 {
				c.w.Arm(b.FD, uint64(i))
				c.w.Disarm(b.FD)
			}
			c.w.Arm(b.FD, uint64(100+i))
		})
	}
	wg.Wait()
	left := map[uint64]bool{100: true, 101: true, 102: true, 103: true}
	for len(left) > 0 {
		select {
		case k := <-c.news:
			delete(left, k)
		case <-time.After(longWait):
			t.Fatalf("not heard: %v", left)
		}
	}
}
