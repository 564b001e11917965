package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Hundreds connect to the control socket and ask nothing, with few descriptors to be had:
// they make way for those who ask, and for services.
func TestFaultVisitors(t *testing.T) {
	const limit, visitors, kept = 300, 600, 64
	r, dir, address := web(t, world{Limits: map[int]uint64{unix.RLIMIT_NOFILE: limit}})
	r.line("web@1 ready")
	for range visitors {
		c, err := net.Dial("unix", filepath.Join(dir, "run", "control.sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	begun := time.Now()
	statusOf(t, dir, "web") // behind all of them in the queue
	took := time.Since(begun)
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", supervisorUnder(t, r.cmd.Process.Pid)))
	if err != nil || len(open) > limit-kept {
		t.Errorf("%d descriptors are open, and at least %d of %d should be free: %v", len(open), kept, limit, err)
	}
	exercise(t, r, dir, address)
	t.Logf("promise N9: with %d descriptors and %d connections that ask nothing, status was answered after %v", limit, visitors, took.Round(100*time.Microsecond))
}
