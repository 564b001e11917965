package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// How long nobody supervises when a supervisor dies, with few units and with many: from
// its death to the first answer of the next, which then has taken up all of them.
func TestReplacingTheSupervisor(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long with the race detector: without -short")
	}
	t.Setenv("CHAOS_CARE", "1") // each death counts as the first
	for _, n := range []int{10, 1000} {
		t.Run(fmt.Sprint(n, " units"), func(t *testing.T) {
			needDescriptors(t, uint64(n)+500)
			dir := t.TempDir()
			for i := range n {
				write(t, dir, fmt.Sprintf("u%04d.toml", i), fmt.Sprintf("[service]\nexec = \"/bin/true\"\n[socket.s]\nlisten = \"unix://@%s/%d\"\n", filepath.Base(filepath.Dir(dir)), i))
			}
			r := start(t, dir, "run", dir)
			w := newWatch(r.cmd.Process.Pid, dir)
			r.line("u[0-9]+@1 idle")
			c := &chaos{t: t, keeper: r.cmd.Process.Pid}
			var all []time.Duration
			for range 20 {
				if err := w.get("/readyz", nil); err != nil {
					t.Fatal(err)
				}
				h := c.supervisor()
				began := time.Now()
				h.signal(unix.SIGKILL)
				if !h.dead(patience) {
					t.Fatal("not dead")
				}
				h.close()
				if err := w.get("/healthz", nil); err != nil {
					t.Fatal(err)
				}
				all = append(all, time.Since(began))
			}
			slices.Sort(all)
			t.Logf("promise N9: a supervisor of %d units is replaced in %v at best, %v in the middle, %v at worst", n, all[0].Round(100*time.Microsecond), all[len(all)/2].Round(100*time.Microsecond), all[len(all)-1].Round(100*time.Microsecond))
		})
	}
}
