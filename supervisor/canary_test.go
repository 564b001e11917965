package supervisor

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
)

// startVersioned has the first version run; the next is what is written to file.
func startVersioned(t *testing.T, keys ...string) (f *fixture, file string) {
	t.Helper()
	f = prepare(t)
	file = f.dir + "/version"
	writeFile(t, file, "one")
	f.write("web", fmt.Sprintf(versioned, file, strings.Join(keys, "\n")))
	f.start()
	f.do("start", "web", Done)
	return f, file
}

func (f *fixture) startCanary(count string, outcome string) Outcome {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	out, err := f.s.canaryUnit(ctx, errand{unit: "web", wait: true}, count)
	if err != nil || out.Outcome != outcome {
		f.t.Fatalf("canary %s: %+v, %v; want %s\n%s", count, out, err, outcome, f.log)
	}
	return out
}

// The service reads its behaviour from a file at each start: a new version without
// a new unit file.
const versioned = `
[service]
role = versioned TEST_FILE=%s
ready = "notify"
start = "boot"
instances = 4
%s
[socket.http]
listen = "tcp://127.0.0.1:0"
per_instance = true
`

func init() {
	roles["versioned"] = func() {
		switch readFile("TEST_FILE") {
		case "broken":
			panic("this version is broken")
		case "silent":
			<-catchTERM()
			return
		case "dies":
			notify("READY=1")
			os.Exit(7)
		}
		serve()
	}
}

func TestCanaryIsPromoted(t *testing.T) {
	f, _ := startVersioned(t)
	c := gather(f.address("web", "http"), 4)
	if out := f.startCanary("25%", Done); !strings.Contains(out.Because, "1 of 5") {
		t.Errorf("%+v", out)
	}
	if st := f.unit("web"); st.Canary != 1 || len(st.Instances) != 5 {
		t.Fatalf("%+v", st)
	}
	seen := map[int]bool{}
	for i := 0; i < 1000 && !seen[5]; i++ {
		a, err := ask("tcp", f.address("web", "http"))
		if err != nil {
			t.Fatal(err)
		}
		seen[a.instance] = true
	}
	if !seen[5] {
		t.Error("the canary gets nothing")
	}
	f.crash()
	f.start()
	if st := f.unit("web"); st.Canary != 1 {
		t.Fatalf("after a crash: %+v", st)
	}
	f.do("promote", "web", Done)
	c.leave()
	st := f.unit("web")
	if st.Canary != 0 || len(st.Instances) != 4 {
		t.Fatalf("%+v", st)
	}
	for _, in := range st.Instances {
		if in.Runs[0].Gen <= 4 {
			t.Errorf("instance %d is still of generation %d", in.Instance, in.Runs[0].Gen)
		}
	}
	if c.failed.Load() > 0 {
		t.Errorf("%d of %d failed: %v", c.failed.Load(), c.served.Load(), c.complaints())
	}
	t.Logf("promise N2: %d connections through a canary and its promotion, %d failed", c.served.Load(), c.failed.Load())
}

// Of one that is not ready in time it is said, and not only what ended it: by itself, or by
// SIGTERM where it had not come to catch that.
func TestCanaryThatIsNeverReady(t *testing.T) {
	f, file := startVersioned(t)
	f.write("web", fmt.Sprintf(versioned, file, `start_timeout = "200ms"`))
	if err := f.s.Reload(t.Context()); err != nil { // policy: it disturbs nobody
		t.Fatal(err)
	}
	writeFile(t, file, "silent")
	if out := f.startCanary("1", RolledBack); !strings.Contains(out.Because, "start timeout 200ms: ") {
		t.Errorf("because %q", out.Because)
	}
}

// An aborted canary has ended, however the old version is.
func TestCanaryIsAbortedWhereOthersFail(t *testing.T) {
	f, file := startVersioned(t, `restart_delay = "1h"`, `restart_delay_max = "1h"`)
	f.startCanary("1", Done)
	writeFile(t, file, "broken")
	kill(t, f.unit("web").Instances[0].Runs[0].Pid)
	f.until("the first waits", func() bool { return f.unit("web").Instances[0].State == "backoff" })
	f.do("abort", "web", Done)
	if st := f.unit("web"); st.Canary != 0 || len(st.Instances) != 4 {
		t.Errorf("%+v", st)
	}
}

// A unit that is stopped or paused while there is a canary: whoever asks hears at once.
func TestCanaryOfAStoppedUnit(t *testing.T) {
	f, _ := startVersioned(t)
	refused := func(why string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%v, want one that says %q", err, why)
		}
	}
	f.startCanary("2", Done)
	f.do("stop", "web", Done)
	_, err := f.s.promoteUnit(t.Context(), errand{unit: "web", wait: true})
	refused("it is stopped", err)
	f.do("abort", "web", Done)
	f.do("start", "web", Done)
	f.until("its instances have gone", func() bool { return len(f.unit("web").Instances) == 4 })
	_, err = f.s.abortUnit(t.Context(), errand{unit: "web", wait: true})
	refused("how the last one ended: aborted by the operator", err)

	f.do("stop", "web", Done)
	if out, err := f.s.scaleUnit(t.Context(), errand{unit: "web", wait: true}, 2); err != nil || out.Outcome != Done {
		t.Errorf("scale: %+v, %v", out, err)
	}
	f.do("start", "web", Done)
	f.until("two are left", func() bool { return len(f.unit("web").Instances) == 2 })

	f.do("pause", "web", Done)
	_, err = f.s.canaryUnit(t.Context(), errand{unit: "web", wait: true}, "1")
	refused("it is paused", err)
	ctx, cancel := context.WithCancel(t.Context())
	said := make(chan Outcome, 1)
	go func() {
		out, _ := f.s.restartUnit(ctx, errand{unit: "web", wait: true})
		said <- out
	}()
	f.until("it is to be replaced", func() bool { return f.unit("web").Instances[0].Runs[0].Stale })
	cancel()
	if out := <-said; out.Outcome != TimedOut || !strings.Contains(out.Because, "it is paused") {
		t.Errorf("%+v", out)
	}
}

func TestCanaryThatFailsEndsByItself(t *testing.T) {
	f, file := startVersioned(t)
	c := gather(f.address("web", "http"), 4)
	before := f.unit("web")
	writeFile(t, file, "broken")
	if out := f.startCanary("2", RolledBack); !strings.Contains(out.Because, "exit status 2") {
		t.Errorf("because %q", out.Because)
	}
	f.until("the canary is gone", func() bool { return len(f.unit("web").Instances) == 4 })
	c.leave()
	after := f.unit("web")
	for i := range after.Instances {
		if after.Instances[i].Runs[0].Pid != before.Instances[i].Runs[0].Pid {
			t.Errorf("instance %d was disturbed", i+1)
		}
	}
	if c.failed.Load() > 0 {
		t.Errorf("%d of %d failed: %v", c.failed.Load(), c.served.Load(), c.complaints())
	}
	writeFile(t, file, "two")
	f.startCanary("1", Done)
	f.do("abort", "web", Done)
	if st := f.unit("web"); len(st.Instances) != 4 || st.Canary != 0 {
		t.Errorf("%+v", st)
	}
}

// Whenever a supervisor dies while a canary ends, the next one goes on with that: no
// instance of a version that failed stays.
func TestCanaryEndsOverACrash(t *testing.T) {
	f, _ := startVersioned(t)
	f.startCanary("2", Done)
	err := f.s.ask(t.Context(), func() error { // saved, and the machine has not heard of it
		_, err := f.s.endCanary(f.s.units["web"], "a test ends it")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f.crash()
	f.start()
	f.until("the canary is gone", func() bool { st := f.unit("web"); return st.Canary == 0 && len(st.Instances) == 4 })
	if st := f.unit("web"); st.CanaryEnd != "a test ends it" {
		t.Errorf("it ended because %q", st.CanaryEnd)
	}
	if out, err := f.s.scaleUnit(t.Context(), errand{unit: "web", wait: true}, 3); err != nil || out.Outcome != Done {
		t.Errorf("%+v, %v", out, err)
	}
}

// A promotion is finished by whoever supervises, though nobody waits for it any more.
func TestPromotionGoesOnOverACrash(t *testing.T) {
	f, _ := startVersioned(t)
	f.startCanary("1", Done)
	if out, err := f.s.promoteUnit(t.Context(), errand{unit: "web"}); err != nil || out.Outcome != Asked {
		t.Fatalf("%+v, %v", out, err)
	}
	f.crash()
	f.start()
	f.until("it is promoted", func() bool { st := f.unit("web"); return st.Canary == 0 && len(st.Instances) == 4 })
	st := f.unit("web")
	if st.CanaryEnd != promoted {
		t.Errorf("it ended because %q", st.CanaryEnd)
	}
	for _, in := range st.Instances {
		for _, r := range in.Runs {
			if r.Gen <= 4 && !r.Stale && r.State == "ready" {
				t.Errorf("instance %d is still of generation %d", in.Instance, r.Gen)
			}
		}
	}
}

// A promotion whose replacement fails leaves the canary on trial, and says so.
func TestPromotionThatFailsIsRolledBack(t *testing.T) {
	f, file := startVersioned(t)
	f.startCanary("1", Done)
	writeFile(t, file, "broken")
	if out := f.do("promote", "web", RolledBack); !strings.Contains(out.Because, "exit status 2") {
		t.Errorf("because %q", out.Because)
	}
	if st := f.unit("web"); st.Canary != 1 || len(st.Instances) != 5 {
		t.Errorf("%+v", st)
	}
	f.do("abort", "web", Done)
	if st := f.unit("web"); st.Canary != 0 || len(st.Instances) != 4 {
		t.Errorf("%+v", st)
	}
}

func TestCanaryCount(t *testing.T) {
	for _, c := range []struct {
		name, text      string
		instances, want int // 0: refused
	}{
		{"a number", "2", 4, 2},
		{"all", "4", 4, 4},
		{"too many", "5", 4, 0},
		{"none", "0", 4, 0},
		{"a share", "25%", 8, 2},
		{"a share is rounded up", "1%", 8, 1},
		{"all of them", "100%", 8, 8},
		{"more than all", "101%", 8, 0},
		{"more than all of many", "150%", 200, 0},
		{"as many as overflow", "4611686018427387929%", 4, 0},
		{"no number", "some", 4, 0},
		{"nothing", "%", 4, 0},
	} {
		if n, err := canaryCount(c.text, c.instances); n != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%s: %q of %d is %d, %v; want %d", c.name, c.text, c.instances, n, err, c.want)
		}
	}
}
