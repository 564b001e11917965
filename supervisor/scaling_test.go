package supervisor

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// A scaling is one that somebody has asked for and is yet to hear of: what happens
// between asking and waiting comes before he looks.
type scaling struct {
	f         *fixture
	e         errand
	instances int
}

func (f *fixture) beginScale(instances int) scaling {
	f.t.Helper()
	sc := scaling{f, errand{unit: "web", id: fmt.Sprintf("scale to %d", instances)}, instances}
	if out, err := f.s.scaleUnit(f.t.Context(), sc.e, instances); err != nil || out.Outcome != Asked {
		f.t.Fatalf("%+v, %v", out, err)
	}
	return sc
}

// outcome waits for it, as who asks again under the same name does.
func (sc scaling) outcome() Outcome {
	sc.f.t.Helper()
	ctx, cancel := context.WithTimeout(sc.f.t.Context(), patience)
	defer cancel()
	sc.e.wait = true
	out, err := sc.f.s.scaleUnit(ctx, sc.e, sc.instances)
	if err != nil {
		sc.f.t.Fatal(err)
	}
	return out
}

// Who waits for a number is told when it is reached, though a canary has made it more
// since.
func TestScaleIsDoneThoughACanaryHasBegun(t *testing.T) {
	f, _ := startVersioned(t)
	sc := f.beginScale(5)
	f.startCanary("1", Done)
	if out := sc.outcome(); out.Outcome != Done {
		t.Errorf("scaled to 5, then a canary of 1: %+v", out)
	}
	if st := f.unit("web"); st.Canary != 1 || len(st.Instances) != 6 {
		t.Errorf("%+v", st)
	}
}

// What is awaited is that number, of instances that are not a canary's.
func TestScaledTo(t *testing.T) {
	in := func(states ...string) (list []InstanceStatus) {
		for i, state := range states {
			list = append(list, InstanceStatus{Instance: i + 1, State: state})
		}
		return list
	}
	for _, c := range []struct {
		name string
		st   UnitStatus
		want string
	}{
		{"one of two starts", UnitStatus{Up: true, wanted: 2, Instances: in("ready", "starting")}, ""},
		{"both are ready", UnitStatus{Up: true, wanted: 2, Instances: in("ready", "ready")}, Done},
		{"one has failed", UnitStatus{Up: true, wanted: 2, Instances: in("ready", "backoff")}, Failed},
		{"a third leaves", UnitStatus{Up: true, wanted: 2, Instances: in("ready", "ready", "draining")}, ""},
		{"a canary starts", UnitStatus{Up: true, wanted: 2, Canary: 1, Instances: in("ready", "ready", "starting")}, Done},
		{"a canary fails", UnitStatus{Up: true, wanted: 2, Canary: 1, Instances: in("ready", "idle", "backoff")}, Done},
		{"a canary is ready, and one of two starts", UnitStatus{Up: true, wanted: 2, Canary: 1, Instances: in("ready", "starting", "ready")}, ""},
		{"stopped", UnitStatus{wanted: 2, Instances: in("stopped", "stopped")}, Done},
		{"another number", UnitStatus{Up: true, wanted: 3, Instances: in("ready", "ready")}, Failed},
	} {
		if got, because := scaledTo(2)(c.st); got != c.want {
			t.Errorf("%s: %q (%s), want %q", c.name, got, because, c.want)
		}
	}
}

// Who waits for a number that somebody has changed since is told so.
func TestScaleThatIsOvertaken(t *testing.T) {
	f := newFixture(t, "web", fmt.Sprintf(siblings, "", 2, ""))
	f.do("start", "web", Done)
	first, second := f.beginScale(5), f.beginScale(3)
	if out := first.outcome(); out.Outcome != Failed || out.Because != "another number was asked for meanwhile: 3" {
		t.Errorf("%+v", out)
	}
	if out := second.outcome(); out.Outcome != Done {
		t.Errorf("%+v", out)
	}
	sc := f.beginScale(4)
	f.write("web", fmt.Sprintf(siblings, "", 1, ""))
	if _, err := f.s.reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := sc.outcome(); out.Outcome != Failed || out.Because != "another number was asked for meanwhile: 1" {
		t.Errorf("%+v", out)
	}
}

// A place whose old run is still leaving is no place for a canary.
func TestCanaryWaitsForWhoLeaves(t *testing.T) {
	f := newFixture(t, "web", strings.Replace(fmt.Sprintf(siblings, "", 3, `stop_timeout = "0s"`), "role = serve", "role = deaf", 1))
	defer f.s.Kill()
	f.do("start", "web", Done)
	sc := f.beginScale(2)
	f.until("one of them leaves", func() bool { st := f.unit("web"); return len(st.Instances) == 3 && st.Instances[2].State == "draining" })
	if _, err := f.s.canaryUnit(t.Context(), errand{unit: "web", wait: true}, "1"); err != errLeaving {
		t.Errorf("a canary in the place of one that leaves: %v", err)
	}
	kill(t, f.unit("web").Instances[2].Runs[0].Pid)
	if out := sc.outcome(); out.Outcome != Done {
		t.Errorf("%+v", out)
	}
	f.startCanary("1", Done)
}

// Who waits for the end of a canary is told of it, though another has begun since.
func TestCanaryEndsThoughAnotherBegins(t *testing.T) {
	f, _ := startVersioned(t)
	for _, c := range []struct {
		verb string
		do   verb
	}{{"abort", (*Supervisor).abortUnit}, {"promote", (*Supervisor).promoteUnit}} {
		f.startCanary("1", Done)
		e := errand{unit: "web", id: c.verb}
		if out, err := c.do(f.s, t.Context(), e); err != nil || out.Outcome != Asked {
			t.Fatalf("%+v, %v", out, err)
		}
		f.until("it has ended", func() bool { st := f.unit("web"); return st.Canary == 0 && len(st.Instances) == 4 })
		f.startCanary("1", Done)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		e.wait = true
		if out, err := c.do(f.s, ctx, e); err != nil || out.Outcome != Done {
			t.Errorf("%s: %+v, %v", c.verb, out, err)
		}
		f.do("abort", "web", Done)
	}
}
