package main

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// needDescriptors skips where sockd may not have as many.
func needDescriptors(t *testing.T, n uint64) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < n {
		t.Skipf("needs %d descriptors, and %d are allowed", n, limit.Max)
	}
}

// A stopped supervisor takes nothing that the keeper says, however much there is to
// say: it is killed by the watchdog all the same, and the next one hears it all.
func TestStoppedSupervisorWhileMuchHappens(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long with the race detector: without -short")
	}
	t.Setenv("CHAOS_CARE", "1")
	needDescriptors(t, 4000)
	const n = 600 // more than fit into the wire
	dir := t.TempDir()
	write(t, dir, "many.toml", "[service]\nexec = [\"sleep\", \"1000\"]\ninstances = 600\nrestart = \"no\"\n")
	r := start(t, dir, "run", "--log-format", "json", dir)
	c := &chaos{t: t, keeper: r.cmd.Process.Pid}
	w := newWatch(c.keeper, dir)
	r.line(`"ready"`)
	if err := w.get("/readyz", nil); err != nil {
		t.Fatal(err)
	}
	h := c.supervisor()
	defer h.close()
	h.signal(unix.SIGSTOP)
	killed := 0
	for _, p := range childrenOf(c.keeper) {
		if p.pid == h.pid {
			continue
		}
		if s, ok := hold(c.keeper, p.pid, func(proc) bool { return true }); ok {
			s.signal(unix.SIGKILL)
			s.close()
			killed++
		}
	}
	if killed != n {
		t.Fatalf("%d services", killed)
	}
	r.line(`"supervisor killed".*stopped`)
	for exits := 0; exits < n; {
		if l := r.line(`"exited"|not understood`); strings.Contains(l, "SIGKILL") {
			exits++
		} else {
			t.Fatal(l)
		}
	}
	if err := w.get("/healthz", nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("promise N9: a supervisor that was stopped while %d services ended was replaced, and each has its record", n)
}
