package supervisor

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// clients keeps asking until the function it returns is called, which says how many
// were served and how many not.
func (f *fixture) clients(n int, address string) (stop func() (served, failed int64)) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	var served, failed atomic.Int64
	for range n {
		wg.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				if _, err := ask("tcp", address); err != nil {
					failed.Add(1)
					f.t.Error(err)
				}
				served.Add(1)
			}
		})
	}
	return func() (int64, int64) {
		close(quit)
		wg.Wait()
		return served.Load(), failed.Load()
	}
}

func TestGateThatFailsRollsBack(t *testing.T) {
	for _, gate := range []struct{ name, ready, bad, because string }{
		{"http", `{ http = "/healthz", interval = "20ms" }`, "503", "ready: GET /healthz: 503 Service Unavailable"},
		{"tcp", `{ tcp = true, interval = "20ms", timeout = "300ms" }`, "wait", "ready: a connection was not accepted within 300ms"},
		{"command", `{ command = ["/bin/grep", "-q", "2", "HEALTH"], interval = "20ms" }`, "bad", "ready: /bin/grep: exit status 1"},
	} {
		t.Run(gate.name, func(t *testing.T) {
			f := prepare(t)
			g := &gateFixture{f, filepath.Join(t.TempDir(), "health")}
			g.say(map[string]string{"http": "200", "tcp": "accept", "command": "2"}[gate.name])
			unit := gateUnit(g.health, strings.ReplaceAll(gate.ready, "HEALTH", g.health), "instances = 2")
			f.write("web", unit)
			f.start()
			f.do("start", "web", Done)
			address := f.address("web", "http")
			stop := f.clients(2, address)
			g.say(gate.bad)
			// Patience is short, but long enough for the gate to be asked, on any machine.
			for limit, found := time.Second/2, false; !found; limit *= 2 {
				f.write("web", strings.Replace(unit, "instances", fmt.Sprintf("start_timeout = \"%v\"\ninstances", limit), 1))
				if err := f.s.Reload(t.Context()); err != nil {
					t.Fatal(err)
				}
				out := f.do("restart", "web", RolledBack)
				if found = strings.Contains(out.Because, fmt.Sprintf("start timeout %v: %s", limit, gate.because)); !found && limit > patience/4 {
					t.Fatalf("because %q", out.Because)
				}
			}
			served, failed := stop()
			for _, in := range f.unit("web").Instances {
				if in.State != "ready" || len(in.Runs) != 1 || in.Runs[0].Gen > 2 {
					t.Errorf("%+v", in)
				}
			}
			g.quiet()
			if served == 0 || failed > 0 {
				t.Errorf("%d served, %d failed", served, failed)
			}
			t.Logf("promise N2: a gate of kind %s failed, the old processes served %d connections, %d failed", gate.name, served, failed)
		})
	}
}

func TestGateReachesTheNewProcess(t *testing.T) {
	f := prepare(t)
	g := &gateFixture{f, filepath.Join(t.TempDir(), "health")}
	g.say("200")
	const instances = 3
	f.write("web", gateUnit(g.health, `{ http = "/", interval = "5ms", timeout = "60s" }`, fmt.Sprintf("instances = %d", instances)))
	f.start()
	f.do("start", "web", Done)
	stop := f.clients(2, f.address("web", "http"))
	const rounds = 3
	for range rounds {
		f.do("restart", "web", Done)
	}
	served, failed := stop()
	st := f.unit("web")
	if st.LastGen != instances*(1+rounds) {
		t.Errorf("generation %d", st.LastGen)
	}
	g.quiet()
	// Each process was asked, and, being well, no more than once.
	waitFor(t, "the questions", func() bool { return strings.Count(g.out.String(), "asked 1: GET / sockd") == instances*(1+rounds) })
	if strings.Contains(g.out.String(), "asked 2") {
		t.Errorf("asked again:\n%s", g.out)
	}
	if served == 0 || failed > 0 {
		t.Errorf("%d served, %d failed", served, failed)
	}
	t.Logf("promise N2: %d replacements behind a gate, %d connections, %d failed; N10: one question each", rounds*instances, served, failed)
}

func TestGateGoesOnAfterACrash(t *testing.T) {
	dir := t.TempDir()
	for _, gate := range []struct{ name, ready, bad, good string }{
		{"http", `{ http = "/healthz", interval = "5ms" }`, "503", "200"},
		{"tcp", `{ tcp = true, interval = "5ms", timeout = "300ms" }`, "wait", "accept"},
		{"command", `{ command = ["/bin/sh", "-c", "echo $$ >>` + dir + `/pids; grep -q good HEALTH || exec sleep 1000"], interval = "5ms", timeout = "500ms" }`, "bad", "good"},
	} {
		t.Run(gate.name, func(t *testing.T) {
			f := prepare(t)
			g := &gateFixture{f, filepath.Join(t.TempDir(), "health")}
			g.say(gate.bad)
			f.write("web", gateUnit(g.health, strings.ReplaceAll(gate.ready, "HEALTH", g.health), ""))
			f.start()
			const crashes = 5
			for range crashes {
				g.awaitUnready("ready: ")
				f.crash()
				f.start()
			}
			g.say(gate.good)
			g.awaitState("web", 1, "ready")
			g.quiet()
			if st := f.unit("web"); st.LastGen != 1 {
				t.Errorf("generation %d after %d crashes", st.LastGen, crashes)
			}
			f.crash()
			f.start()
			if st := f.unit("web"); st.State != "ready" {
				t.Errorf("after one more it is %s", st.State)
			}
			g.quiet()
			waitFor(t, "the checks to end", func() bool { return aliveOf(t, dir+"/pids") == 0 })
			inv, err := g.keeper.Inventory()
			if err != nil || len(inv.Children) != 1 {
				t.Errorf("%+v, %v", inv.Children, err)
			}
			for name := range inv.Descriptors {
				if strings.Contains(name, "/ready") {
					t.Errorf("still held: %s", name)
				}
			}
			f.do("stop", "web", Done)
			inv, _ = g.keeper.Inventory()
			for name := range inv.Descriptors {
				if strings.HasPrefix(name, "gate/") {
					t.Errorf("still held: %s", name)
				}
			}
			t.Logf("promise N5: a %s gate went on through %d crashes of the supervisor, one process", gate.name, crashes)
		})
	}
}

// Another question, and a socket for it that the process must be given: only the
// second of these is for another process.
func TestGateThatIsReloaded(t *testing.T) {
	f := prepare(t)
	g := &gateFixture{f, filepath.Join(t.TempDir(), "health")}
	g.say("200")
	reload := func(ready string) {
		t.Helper()
		f.write("web", gateUnit(g.health, ready, ""))
		if err := f.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f.write("web", gateUnit(g.health, `{ http = "/a" }`, ""))
	f.start()
	f.do("start", "web", Done)
	reload(`{ http = "/b" }`)
	if st := f.unit("web"); st.LastGen != 1 {
		t.Errorf("another path replaced the process: %+v", st)
	}
	reload(`"exec"`)
	f.do("restart", "web", Done)
	first := f.unit("web").LastGen
	reload(`{ http = "/c" }`)
	f.until("a process with a gate", func() bool {
		in := f.unit("web").Instances[0]
		return len(in.Runs) == 1 && in.Runs[0].Gen == first+1 && in.State == "ready"
	})
	g.quiet()
	waitFor(t, "the question", func() bool { return strings.Contains(g.out.String(), "asked 1: GET /c sockd") })
	if strings.Contains(g.out.String(), "GET /b") {
		t.Errorf("a ready process was asked:\n%s", g.out)
	}
}
