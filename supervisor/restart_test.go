package supervisor

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestRestartLosesNoConnection(t *testing.T) {
	f := newFixture(t, "web", `
[service]
role = serve
ready = "notify"
instances = 2
start = "boot"
[socket.http]
listen = "tcp://127.0.0.1:0"
`)
	f.do("start", "web", Done)
	address := f.address("web", "http")
	before := f.unit("web").Sockets[0].Inode
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var served, failed atomic.Int64
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := ask("tcp", address); err != nil {
					failed.Add(1)
					t.Error(err)
				}
				served.Add(1)
			}
		})
	}
	const rounds = 10
	for range rounds {
		f.do("restart", "web", Done)
	}
	close(stop)
	wg.Wait()
	st := f.unit("web")
	if st.LastGen != 2+2*rounds || st.Sockets[0].Inode != before {
		t.Errorf("generation %d after %d restarts, socket %d and %d", st.LastGen, rounds, before, st.Sockets[0].Inode)
	}
	t.Logf("promise N2: %d connections through %d restarts of 2 instances, %d failed", served.Load(), rounds, failed.Load())
}

func TestRestartThatFailsCostsNothing(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	first, err := ask("tcp", f.address("web", "http"))
	if err != nil {
		t.Fatal(err)
	}
	f.write("web", strings.Replace(onDemand, "role = serve", "role = exit TEST_CODE=7", 1))
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.await("replacement failed", func(e Event) bool { return strings.Contains(e.Because, "replacement failed") })
	out := f.do("restart", "web", RolledBack)
	if !strings.Contains(out.Because, "exit status 7") {
		t.Errorf("because %q", out.Because)
	}
	again, err := ask("tcp", f.address("web", "http"))
	if err != nil || again.pid != first.pid {
		t.Fatalf("%+v, then %+v, %v", first, again, err)
	}
}

// A version that says it is ready and dies leaves the old one serving, everywhere, and
// who asked hears why, also when the supervisor has died since.
func TestRestartThatIsReadyAndDies(t *testing.T) {
	f, file := startVersioned(t, `overlap_time = "1h"`, "step = 2")
	before := f.unit("web")
	c := gather(f.address("web", "http"), 4)
	writeFile(t, file, "dies")
	for range 3 {
		if out := f.do("restart", "web", RolledBack); !strings.Contains(out.Because, "exit status 7") {
			t.Errorf("because %q", out.Because)
		}
	}
	f.crash()
	f.start()
	f.until("the last attempts are over", func() bool { // of a step of two the second may be on its way
		return !slices.ContainsFunc(f.unit("web").Instances, func(in InstanceStatus) bool { return len(in.Runs) != 1 })
	})
	c.leave()
	for i, in := range f.unit("web").Instances {
		if len(in.Runs) != 1 || in.Runs[0].Pid != before.Instances[i].Runs[0].Pid || !strings.Contains(in.Runs[0].Kept, "exit status 7") {
			t.Errorf("%+v", in)
		}
	}
	if c.failed.Load() > 0 {
		t.Errorf("%d of %d failed: %v", c.failed.Load(), c.served.Load(), c.complaints())
	}
	t.Logf("promise N2: %d connections while 3 restarts came to nothing, the new version ready and dead: %d failed", c.served.Load(), c.failed.Load())
}

func TestExecFailureSaysWhichStep(t *testing.T) {
	f := newFixture(t, "web", `
[service]
exec = "/nonexistent/program"
start = "boot"
restart = "no"
`)
	e := f.await("not started", func(e Event) bool { return e.What == "not started" })
	if !strings.Contains(e.Because, "exec") || !strings.Contains(e.Because, "no such file") {
		t.Fatalf("because %q", e.Because)
	}
	f.until("failed", func() bool { return f.unit("web").State == "failed" })
}

func TestEssentialUnitEndsTheSupervisor(t *testing.T) {
	for _, code := range []int{0, 3} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			f := newFixture(t, "main", fmt.Sprintf(`
[service]
role = exit TEST_CODE=%d
start = "boot"
restart = "no"
essential = true
`, code), "other", onDemand)
			err := f.wait()
			ended, ok := err.(*ExitError)
			if !ok || ended.Code != code || ended.Unit != "main" {
				t.Fatalf("ended with %v", err)
			}
		})
	}
}

func TestBackoffKeepsThePortAndHeals(t *testing.T) {
	for _, code := range []int{0, 1} {
		t.Run(fmt.Sprint("exit ", code), func(t *testing.T) {
			f := newFixture(t, "web", fmt.Sprintf(`
[service]
role = exit TEST_CODE=%d
ready = "notify"
restart_delay = "20ms"
restart_delay_max = "100ms"
[socket.http]
listen = "tcp://127.0.0.1:0"
`, code))
			address := f.address("web", "http")
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if _, err := ask("tcp", address); err != nil {
						t.Error(err)
					}
				})
			}
			for range 4 {
				f.awaitState("web", 1, "backoff")
			}
			f.write("web", strings.Replace(onDemand, "ready", `restart_delay = "20ms"
ready`, 1))
			if err := f.s.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			wg.Wait()
		})
	}
}
