package keeper_test

import (
	"os"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// The cgroup of a run goes when the run is struck off the list, and with the keeper if
// it never was.
func TestCgroupsAreRemoved(t *testing.T) {
	if !cgroupsWork(t) {
		t.Skip("no writable cgroup v2")
	}
	for _, acknowledged := range []bool{true, false} {
		l := newLocal(t, keeper.Options{})
		folder := keeper.CgroupFolder(l)
		for gen := range uint64(3) {
			ok(t, l.Spawn(id("web", gen+1), process("/bin/true")))
			for ev := next(t, l); ; ev = next(t, l) {
				if acknowledged || ev.Kind != keeper.Exited {
					ok(t, l.Acknowledge(ev))
				}
				if ev.Kind == keeper.Exited {
					break
				}
			}
		}
		if acknowledged {
			for late := time.Now().Add(patience); leaves(t, folder) > 1; <-time.After(time.Millisecond) { // one is made ahead
				if time.Now().After(late) {
					t.Fatalf("%d cgroups stay", leaves(t, folder))
				}
			}
		} else if n := leaves(t, folder); n < 3 {
			t.Errorf("%d cgroups of 3 runs that are on the list", n)
		}
		ok(t, l.Close())
		if _, err := os.Stat(folder); !os.IsNotExist(err) {
			t.Errorf("acknowledged %v: %s stays: %v", acknowledged, folder, err)
		}
	}
}

// leaves counts the cgroups in the keeper's folder.
func leaves(t *testing.T, folder string) (n int) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	ok(t, err)
	for _, e := range entries {
		if e.IsDir() {
			n++
		}
	}
	return n
}
