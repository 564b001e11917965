package machine

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var (
	histories = flag.Int("histories", 0, "how many histories the simulation lives; 0: 50000, or 5000 with -short")
	seedFlag  = flag.Uint64("seed", 0, "the seed of the simulation; 0 draws one")
)

// TestSimulation lives through many histories in a simulated world, on all cores.
// -histories and -seed choose; the seed that is printed (with -v) replays them:
//
//	go test ./supervisor/internal/machine -v -run Simulation -histories 1000000 -seed 1
func TestSimulation(t *testing.T) {
	n, seed := *histories, *seedFlag
	if n == 0 {
		if n = 50_000; testing.Short() {
			n = 5_000
		}
	}
	if seed == 0 {
		seed = rand.Uint64N(1_000_000_000) + 1
	}
	var next, events, crashes, flushes, replaced, arrived, together, violations atomic.Int64
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	began := cpuTime()
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			source := rand.NewPCG(0, 0)
			rng, w := rand.New(source), new(world)
			for i := next.Add(1); i <= int64(n) && violations.Load() < 3; i = next.Add(1) {
				source.Seed(seed, uint64(i))
				w.history(rng)
				if w.broken != "" {
					violations.Add(1)
					t.Errorf("seed %d, history %d: %s\n%s", seed, i, w.broken, replay(seed, uint64(i)))
				}
			}
			events.Add(int64(w.events))
			crashes.Add(int64(w.crashes))
			flushes.Add(int64(w.flushes))
			replaced.Add(int64(w.replaced))
			arrived.Add(int64(w.arrived))
			together.Add(int64(w.together))
		})
	}
	workers.Wait()
	rate := float64(events.Load()) / (cpuTime() - began).Seconds()
	fmt.Printf("simulation: seed %d, %d histories, %d events, %d crashes, %d times several together, %d replacements, %d flushes, %d violations, %.2f million events a second of each core\n",
		seed, min(int(next.Load()), n), events.Load(), crashes.Load(), together.Load(), replaced.Load(), flushes.Load(), violations.Load(), rate/1e6)
	if violations.Load() == 0 {
		t.Logf("promise N2: simulated, %d connections waited through %d replacements, %d crashes of the supervisor and %d flushes, 0 lost",
			arrived.Load(), replaced.Load(), crashes.Load(), flushes.Load())
	}
}

// replay lives a history again and tells what happens in it.
func replay(seed, i uint64) string {
	w := &world{tracing: true}
	w.history(rand.New(rand.NewPCG(seed, i)))
	return strings.Join(w.trace, "\n")
}

// cpuTime is what this process has used of all cores together, so that the rate
// means the same on a machine with other work to do.
func cpuTime() time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		return 0
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
