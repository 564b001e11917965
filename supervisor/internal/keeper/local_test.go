package keeper_test

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/sys"
)

// A child that is stopped before exec stands in nobody's way, and can be killed:
// there was no program, so it is a failed start. Without the trampoline, no signal
// of ours is there before exec.
func TestStuckBeforeExec(t *testing.T) {
	sys.AlwaysTrampoline(true)
	defer sys.AlwaysTrampoline(false)
	floors(t, func(t *testing.T, k *keeper.Local) {
		const want = 10 // more than may fork at once
		stuck := map[keeper.ID]bool{}
		next := func(t *testing.T, k *keeper.Local) keeper.Event {
			ev := next(t, k)
			for stuck[ev.ID] && ev.Kind == keeper.Execed { // one of its threads was in exec already: it stopped only after that
				ev = next(t, k)
			}
			return ev
		}
		for gen := uint64(1); len(stuck) < want; gen++ {
			if gen > 200 {
				t.Skip("this machine is too quick: the program runs before the signal is there")
			}
			web := id("web", gen)
			ok(t, k.Spawn(web, process("sleep", "1000")))
			ok(t, k.Signal(web, unix.SIGSTOP)) // kept for the child, and sent as soon as it is there
			eventually(t, "neither stopped nor running", func() bool {
				for _, c := range children(t, k) {
					if c.ID == web && c.Running {
						return true
					}
					if c.ID == web && c.Pid != 0 && state(c.Pid) == "T" {
						stuck[web] = true
						return true
					}
				}
				return false
			})
			if !stuck[web] { // execed first
				ok(t, k.Signal(web, unix.SIGKILL))
				next(t, k)
				next(t, k)
			}
		}
		other := id("other", 1)
		ok(t, k.Spawn(other, shell("exit 3")))
		for _, kind := range []keeper.Kind{keeper.Execed, keeper.Exited} {
			if ev := next(t, k); ev.ID != other || ev.Kind != kind {
				t.Fatalf("%+v", ev)
			}
		}
		for web := range stuck {
			ok(t, k.Signal(web, unix.SIGKILL))
		}
		for range stuck {
			ev := next(t, k)
			after := ev.Kind == keeper.Exited && ev.Signal == int(unix.SIGKILL)
			if !after && (ev.Kind != keeper.SpawnFailed || ev.Stage != "killed" || ev.Err != "before exec: killed by SIGKILL") {
				t.Errorf("%+v", ev)
			}
		}
	})
}

// A run killed before its turn to fork has come is never born.
func TestKilledBeforeFork(t *testing.T) {
	k := newLocal(t, keeper.Options{})
	const n = 100
	for gen := range uint64(n) {
		ok(t, k.Spawn(id("web", gen), process("sleep", "1000")))
		ok(t, k.Signal(id("web", gen), unix.SIGKILL))
	}
	ended := 0
	for ended < n {
		switch ev := next(t, k); ev.Kind {
		case keeper.SpawnFailed:
			ended++
		case keeper.Exited:
			if ended++; ev.Signal != int(unix.SIGKILL) {
				t.Errorf("%+v", ev)
			}
		}
	}
}

// A socket lent to a start stays open until the child has it, though its name is
// released or replaced right after Spawn; and it is not held by anybody afterwards.
func TestReleasedRightAfterSpawn(t *testing.T) {
	k := newLocal(t, keeper.Options{})
	for gen := range uint64(20) {
		w, r := pair(t)
		ok(t, k.Hold("log", w))
		p := shell(`echo $LISTEN_PID $$ >&3`)
		p.Sockets, p.PidEnv = []string{"log"}, []string{"LISTEN_PID"}
		ok(t, k.Spawn(id("web", gen), p))
		ok(t, k.Release("log"))
		r.SetReadDeadline(time.Now().Add(patience))
		b := make([]byte, 100)
		n, err := r.Read(b)
		ok(t, err)
		if f := strings.Fields(string(b[:n])); len(f) != 2 || f[0] != f[1] {
			t.Errorf("%q", b[:n])
		}
		closed(t, r)
		for range 2 {
			if ev := next(t, k); ev.Kind == keeper.SpawnFailed || ev.Code != 0 {
				t.Errorf("%+v", ev)
			}
		}
	}
}

// Ten thousand descriptors fit under a limit of twenty thousand: they are held as
// they are, not as duplicates, and starting a service with one needs no more.
func TestTenThousandHeld(t *testing.T) {
	var limit unix.Rlimit
	ok(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	const n = 10_000
	if limit.Cur < n+500 {
		t.Skipf("limit of descriptors is %d", limit.Cur)
	}
	k := newLocal(t, keeper.Options{})
	ok(t, k.Spawn(id("first", 1), process("true"))) // the first start opens /dev/null for all to come
	next(t, k)
	next(t, k)
	eventually(t, "its handle, which is closed after the news, is open", func() bool {
		list, err := os.ReadDir("/proc/self/fd")
		ok(t, err)
		return !slices.ContainsFunc(list, func(e os.DirEntry) bool {
			to, _ := os.Readlink("/proc/self/fd/" + e.Name())
			return strings.Contains(to, "pidfd")
		})
	})
	before := openDescriptors(t)
	for i := range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		ok(t, err)
		ok(t, k.Hold("listen/web/"+strconv.Itoa(i), fd))
	}
	if got := openDescriptors(t) - before; got != n {
		t.Errorf("%d descriptors more than before", got)
	}
	p := shell(`set -- /proc/$$/fd/*; echo $# >&2`) // a pipe would be there too, for a moment
	for i := range 300 {
		p.Sockets = append(p.Sockets, "listen/web/"+strconv.Itoa(i*33))
	}
	w, r := pair(t)
	p.Output = w
	ok(t, k.Spawn(id("web", 1), p))
	unix.Close(w)
	b := make([]byte, 100)
	r.SetReadDeadline(time.Now().Add(patience))
	m, err := r.Read(b)
	ok(t, err)
	if got := strings.TrimSpace(string(b[:m])); got != "304" { // one is for the folder
		t.Errorf("the child has %s descriptors, with the folder of them", got)
	}
	next(t, k)
	next(t, k)
	ok(t, k.Close())
	if got := openDescriptors(t) - before; got > 1 {
		t.Errorf("%d descriptors left", got)
	}
}

func openDescriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	ok(t, err)
	return len(list)
}

// Starts, ends, failures and closing leave neither descriptors nor goroutines nor
// folders behind.
func TestNothingLeaks(t *testing.T) {
	floors(t, func(t *testing.T, _ *keeper.Local) {
		noCgroup := strings.HasSuffix(t.Name(), "no_cgroup")
		round := func() {
			k, err := keeper.NewLocal(keeper.Options{NoCgroup: noCgroup})
			ok(t, err)
			ok(t, k.Spawn(id("a", 1), process("/nope")))
			ok(t, k.Spawn(id("b", 1), shell("sleep 1000 & exit 1")))
			ok(t, k.Spawn(id("c", 1), process("sleep", "1000")))
			for range 4 {
				next(t, k)
			}
			pid := 0
			for _, c := range children(t, k) {
				if c.ID == id("c", 1) {
					pid = c.Pid
				}
			}
			ok(t, k.Close())
			if !lives(pid) {
				t.Error("closing has touched a process")
			}
			ok(t, unix.Kill(pid, unix.SIGKILL))
			var ws unix.WaitStatus
			_, err = unix.Wait4(pid, &ws, 0, nil)
			ok(t, err)
		}
		round()
		fds, routines := openDescriptors(t), runtime.NumGoroutine()
		for range 10 {
			round()
		}
		eventually(t, "goroutines are left", func() bool { return runtime.NumGoroutine() <= routines })
		if after := openDescriptors(t); after > fds {
			t.Errorf("%d descriptors before, %d after", fds, after)
		}
	})
}

// The commands of many goroutines at once, with the race detector watching.
func TestConcurrentUse(t *testing.T) {
	k := newLocal(t, keeper.Options{})
	const workers, each = 8, 15
	done := make(chan error, workers)
	for w := range workers {
		go func() {
			var errs []error
			for gen := range uint64(each) {
				web := keeper.ID{Unit: "web", Instance: w, Gen: gen}
				var p [2]int
				errs = append(errs, unix.Pipe2(p[:], unix.O_CLOEXEC))
				name := "log/" + web.String()
				errs = append(errs, k.Hold(name, p[1]), unix.Close(p[0]))
				proc := process("sleep", "1000")
				proc.Sockets = []string{name}
				errs = append(errs, k.Spawn(web, proc), k.Save("web", []byte{byte(gen)}), k.Release(name))
				_, err := k.Inventory()
				errs = append(errs, err, k.Signal(web, unix.SIGTERM), k.Signal(web, unix.SIGKILL))
			}
			done <- errors.Join(errs...)
		}()
	}
	for ended := 0; ended < workers*each; {
		ev := next(t, k)
		ok(t, k.Acknowledge(ev))
		if ev.Kind != keeper.Execed {
			ended++
		}
	}
	for range workers {
		ok(t, <-done)
	}
	if c := children(t, k); len(c) != 0 {
		t.Errorf("%+v", c)
	}
}

// News that is acknowledged before anybody has taken it is not told any more, and
// does not pile up.
func TestAcknowledgedUnread(t *testing.T) {
	k := newLocal(t, keeper.Options{})
	for gen := range uint64(100) {
		web := id("web", gen)
		ok(t, k.Spawn(web, process("/nope")))
		eventually(t, "no news in the inventory", func() bool {
			for _, c := range children(t, k) {
				for _, ev := range c.Pending {
					ok(t, k.Acknowledge(ev))
					return true
				}
			}
			return false
		})
	}
	ok(t, k.Spawn(id("last", 1), process("/nope")))
	// One may have been on its way already when it was acknowledged.
	for first := true; ; first = false {
		ev := next(t, k)
		if ev.ID == id("last", 1) {
			return
		}
		if !first {
			t.Fatalf("%+v", ev)
		}
	}
}

// What is left to do for a run that has ended takes nothing from the next of that name.
func TestNameIsUsedAgain(t *testing.T) {
	floors(t, func(t *testing.T, k *keeper.Local) {
		const times = 100
		for range times {
			check := id("web/ready", 1)
			ok(t, k.Spawn(check, process("sleep", "1000")))
			ok(t, k.Acknowledge(next(t, k))) // Execed
			ok(t, k.Signal(check, unix.SIGKILL))
			ev := next(t, k)
			if ev.Kind != keeper.Exited || ev.Signal != int(unix.SIGKILL) {
				t.Fatalf("%+v", ev)
			}
			ok(t, k.Acknowledge(ev))
		}
		if left := children(t, k); len(left) > 0 {
			t.Errorf("still listed: %+v", left)
		}
	})
}
