package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestStorePreserve(t *testing.T) {
	for _, row := range []struct {
		mode                        string
		killed, replaced, restarted bool // kept
	}{
		{"no", false, true, false},
		{"restart", true, true, false},
		{"yes", true, true, true},
	} {
		t.Run(row.mode, func(t *testing.T) {
			f := newFixture(t, "web", strings.Replace(keeping, "fd_store_max = 4", "fd_store_max = 4\nfd_store_preserve = \""+row.mode+"\"", 1))
			at := f.address("web", "http")
			fill := func() {
				t.Helper()
				if order(t, at, "list") == "" {
					wantOrder(t, at, "memfd m x", "told")
				}
			}
			check := func(what string, kept bool) {
				t.Helper()
				want := ""
				if kept {
					want = "m=x"
				}
				if got := order(t, at, "list"); got != want {
					t.Errorf("%s: %q, want %q", what, got, want)
				}
			}
			fill()
			f.do("restart", "web", Done)
			check("replaced", row.replaced)
			fill()
			f.kill()
			check("killed", row.killed)
			fill()
			f.do("restart", "web", Done)
			f.do("stop", "web", Done)
			if kept := len(f.storedNames()) == 1; kept != row.restarted {
				t.Errorf("stopped: kept %v", kept)
			}
			f.crash()
			f.start()
			f.do("start", "web", Done)
			check("stopped and started", row.restarted)
			fill()
			os.Remove(filepath.Join(f.dir, "web.toml"))
			if err := f.s.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.until("web is gone", func() bool { _, ok := f.s.Unit("web"); return !ok })
			f.storeIsEmpty()
		})
	}
}

// storeIsEmpty: the keeper holds nothing that a service has stored.
func (f *fixture) storeIsEmpty() {
	f.t.Helper()
	inv, err := f.keeper.Inventory()
	if err != nil {
		f.t.Fatal(err)
	}
	for name := range inv.Descriptors {
		if strings.HasPrefix(name, "store/") {
			f.t.Errorf("still held: %s", name)
		}
	}
}

func TestStoreQuotaLowered(t *testing.T) {
	f := newFixture(t, "web", keeping)
	at := f.address("web", "http")
	for i := range 4 {
		wantOrder(t, at, fmt.Sprintf("memfd n%d %d", i, i), "told")
	}
	reload := func(max string) {
		t.Helper()
		f.write("web", strings.Replace(keeping, "fd_store_max = 4", max, 1))
		if err := f.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	reload("fd_store_max = 2")
	if got := f.storedNames(); !slices.Equal(got, []string{"n0", "n1"}) {
		t.Fatalf("stored %q", got)
	}
	reload("")
	if got := f.storedNames(); len(got) != 0 {
		t.Fatalf("stored %q", got)
	}
	f.storeIsEmpty()
}

// A supervisor that dies between keeping a descriptor and taking its message out of
// the queue is followed by one that sees the message again.
func TestStoreMessageSeenTwice(t *testing.T) {
	f := newFixture(t, "web", keeping)
	at := f.address("web", "http")
	wantOrder(t, at, "memfd first 1", "told")
	pid := f.unit("web").Instances[0].Runs[0].Pid
	inv, err := f.keeper.Inventory()
	if err != nil {
		t.Fatal(err)
	}
	f.crash()
	// What the dead one had done: kept the descriptor of a message that is still there.
	message := memfd("2")
	defer syscall.Close(message)
	var address string
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range strings.Split(string(environ), "\x00") {
		if a, ok := strings.CutPrefix(v, "NOTIFY_SOCKET="); ok {
			address = a
		}
	}
	sendWith(t, address, "FDSTORE=1\nFDNAME=second", message)
	kept, err := syscall.Dup(message)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.keeper.Hold(storeName("web", &stored{instance: 1, number: 2, name: "second"}), kept); err != nil {
		t.Fatal(err)
	}
	f.start()
	order(t, at, "say 9 x") // the message has been seen by now, or will be before the exit
	f.kill()
	wantOrder(t, at, "list", "first=1 second=2")
	after, err := f.keeper.Inventory()
	if err != nil || len(after.Descriptors) != len(inv.Descriptors)+1 {
		t.Errorf("%d descriptors held, %d before, %v", len(after.Descriptors), len(inv.Descriptors), err)
	}
}

// Each instance has a store of its own, also one that is there by scaling only.
func TestStoreOfScaledInstances(t *testing.T) {
	f := newFixture(t, "web", `
[service]
role = keepsake TEST_SOCKETS=1
start = "boot"
ready = "notify"
restart = "always"
restart_delay = "10ms"
fd_store_max = 1
[socket.http]
listen = "tcp://127.0.0.1:0"
per_instance = true
`)
	f.awaitState("web", 1, "ready")
	scale := func(n int) {
		t.Helper()
		if out, err := f.s.scaleUnit(t.Context(), errand{unit: "web", wait: true}, n); err != nil || out.Outcome != Done {
			t.Fatalf("scale to %d: %+v, %v", n, out, err)
		}
	}
	store := func(instance int) {
		t.Helper()
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", f.unit("web").Instances[instance-1].Runs[0].Pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range strings.Split(string(environ), "\x00") {
			if address, ok := strings.CutPrefix(v, "NOTIFY_SOCKET="); ok {
				fd := memfd("x")
				sendWith(t, address, fmt.Sprintf("FDSTORE=1\nFDNAME=of-%d", instance), fd)
				syscall.Close(fd)
			}
		}
		f.until("it to be stored", func() bool { return len(f.unit("web").Instances[instance-1].Stored) == 1 })
	}
	store(1)
	scale(2)
	store(2)
	pid := f.unit("web").Instances[1].Runs[0].Pid
	kill(t, pid)
	f.awaitState("web", 2, "ready")
	f.await("its exit", func(e Event) bool { return e.Exit != nil && e.Exit.Pid == pid })
	f.crash()
	f.start()
	for i, in := range f.unit("web").Instances {
		if want := []string{fmt.Sprint("of-", i+1)}; !slices.Equal(in.Stored, want) {
			t.Errorf("instance %d has %q", i+1, in.Stored)
		}
	}
	scale(1)
	inv, err := f.keeper.Inventory()
	if err != nil {
		t.Fatal(err)
	}
	_, first := inv.Descriptors["store/web@1/0001/of-1"]
	_, second := inv.Descriptors["store/web@2/0002/of-2"]
	if !first || second {
		t.Errorf("scaled to 1: stored of the first %v, of the second %v", first, second)
	}
}
