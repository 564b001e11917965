package machine

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// TestCheck breaks every invariant, one at a time, in a unit that is sound.
func TestCheck(t *testing.T) {
	served := func(words string) *Unit {
		u := New(parseSpec(t, strings.Fields(words)))
		u.Step(birth, Start{})
		u.Step(birth, Connected{})
		for i := range u.Instances {
			u.Step(birth, Notified{Instance: i + 1, Gen: uint64(i + 1), Ready: true})
		}
		return u
	}
	down := func(u *Unit) { // instance 1 has failed and waits
		u.Step(birth, Exited{Instance: 1, Gen: 1, Status: Status{Code: 1}, Jitter: 0.5})
	}
	for _, row := range []struct {
		name  string
		spec  string
		spoil func(u *Unit)
		want  string
	}{
		{"missing place", "boot", func(u *Unit) { u.Spec.Instances = 2 }, "an instance is missing"},
		{"empty surplus", "boot", func(u *Unit) { u.Instances = append(u.Instances, Instance{}) }, "surplus"},
		{"three runs", "boot", func(u *Unit) { in := &u.Instances[0]; in.Runs = append(in.Runs, in.Runs[0], in.Runs[0]) }, "more than two runs"},
		{"nobody was told", "boot", func(u *Unit) { u.Up = false }, "has not been told to leave"},
		{"not forgotten", "boot", func(u *Unit) { u.Step(birth, Stop{}); u.Instances[0].Fails = 1 }, "not forgotten"},
		{"ended and served", "boot", func(u *Unit) { u.Instances[0].Ended = true }, "ended for good, and yet"},
		{"failed, not ended", "boot", func(u *Unit) { u.Instances[0].Failed = true }, "failed without"},
		{"called and served", "shared", func(u *Unit) { u.Instances[0].Called = true }, "somebody answers"},
		{"called and not started", "shared", func(u *Unit) { down(u); u.Instances[0].Until = 0 }, "nobody was started"},
		{"nobody at boot", "boot", func(u *Unit) { u.Instances[0].Runs = nil }, "wished at boot"},
		{"watched and served", "own", func(u *Unit) { u.Instances[0].Watched = !u.Instances[0].Watched }, "watched exactly if it waits"},
		{"watched on shared", "shared", func(u *Unit) { u.Watched = true }, "watched on shared"},
		{"deaf on shared", "shared restart=no", func(u *Unit) { down(u); u.Instances[0].Until = 0 }, "watched on shared"},
		{"failures below nothing", "boot", func(u *Unit) { u.Instances[0].Fails = -1 }, "fewer than no failures"},
		{"future generation", "boot", func(u *Unit) { u.LastGen = 0 }, "never given"},
		{"generation twice", "boot instances=2", func(u *Unit) { u.Instances[1].Runs[0].Gen = 1 }, "used twice"},
		{"not in order", "boot", func(u *Unit) {
			u.Step(birth, Replace{Upto: 1})
			u.Instances[0].Runs[1].Gen = 1
		}, "not in order"},
		{"asked and not leaving", "boot", func(u *Unit) { u.Instances[0].Runs[0].Asked = true }, "and not leaving"},
		{"leaving and stale", "boot", func(u *Unit) { u.Step(birth, Stop{}); u.Instances[0].Runs[0].Stale = true }, "leaving, and yet"},
		{"forgiven for nothing", "boot", func(u *Unit) { u.Instances[0].Runs[0].Forgiven = true }, "forgiven"},
		{"asked and blamed", "boot", func(u *Unit) { u.Step(birth, Stop{}); u.Instances[0].Runs[0].Fault = Silent }, "blamed"},
		{"ready before", "boot", func(u *Unit) { u.Instances[0].Runs[0].State = Starting }, "ready before"},
		{"ready at no time", "boot", func(u *Unit) { u.Instances[0].Runs[0].ReadyAt = 0 }, "ready at no time"},
		{"watchdog asleep", "boot watchdog=1s", func(u *Unit) { u.Instances[0].Runs[0].Deadline = 0 }, "watchdog without"},
		{"deadline for nothing", "boot", func(u *Unit) { u.Instances[0].Runs[0].Deadline = 1 }, "without a watchdog"},
		{"killing and patient", "boot", func(u *Unit) {
			u.Step(birth, Stop{})
			u.Instances[0].Runs[0].State = Killing
		}, "killing has a deadline"},
		{"killed for no reason", "boot", func(u *Unit) {
			u.Step(birth, Notified{Instance: 1, Gen: 1, Stopping: true})
			u.Instances[0].Runs[0].State, u.Instances[0].Runs[0].Deadline = Killing, 0
		}, "for no reason"},
		{"not relieved", "boot", func(u *Unit) {
			u.Step(birth, Replace{Upto: 1})
			run := &u.Instances[0].Runs[1]
			run.State, run.ReadyAt, run.Deadline = Ready, birth, 0
		}, "not relieved"},
		{"weights missing", "boot steered", func(u *Unit) { u.Weights = nil }, "weights [] for 1"},
		{"weights for nobody", "boot", func(u *Unit) { u.Weights = []int{1} }, "weights [1] for 1"},
		{"one weight too few", "boot steered instances=2", func(u *Unit) { u.Weights = u.Weights[:1] }, "for 2 instances"},
		{"a wrong weight", "boot steered instances=2", func(u *Unit) { u.Weights[1] = 0 }, "weight 0, wanted 1"},
		{"flush while served", "boot steered flush instances=2", func(u *Unit) { u.Instances[0].FlushAt = 1 }, "not steered away"},
		{"flush without steering", "boot", func(u *Unit) { u.Instances[0].FlushAt = 1 }, "not steered away"},
		{"flushed for nothing", "boot steered flush", func(u *Unit) { u.Instances[0].Flushed = true }, "flushed for nothing"},
		{"away while down", "boot", func(u *Unit) { u.Step(birth, Stop{}); u.Instances[0].Away = true }, "not wished, and replaced"},
		{"away and ended", "boot exclusive restart=no", func(u *Unit) { down(u); u.Instances[0].Away = true }, "nobody comes"},
		{"away and serving", "boot exclusive", func(u *Unit) { u.Instances[0].Away = true }, "away, and serving"},
		{"away and paused", "boot steered exclusive instances=2", func(u *Unit) {
			u.Step(birth, Replace{Upto: 1})
			u.Paused, u.Weights[0], u.Instances[0].FlushAt = true, 1, 0
		}, "away, and serving"},
		{"nobody takes it", "boot steered", func(u *Unit) { u.Instances[0].EmptyBy = 1 }, "that cannot"},
		{"empty for nothing", "boot steered instances=2", func(u *Unit) { u.Instances[0].EmptyBy = 1 }, "for nothing"},
		{"paused and watched", "own", func(u *Unit) {
			u.Step(birth, Pause{})
			down(u)
			u.Instances[0].Until, u.Instances[0].Called, u.Instances[0].Watched = 0, false, true
		}, "watched exactly if it waits"},
		{"surplus, empty and flushed", "boot steered flush instances=2", func(u *Unit) {
			u.Step(birth, Scale{Instances: 1})
			u.Instances[1].Runs, u.Instances[1].FlushAt = nil, 0
		}, "surplus"},
		{"unknown state", "boot", func(u *Unit) { u.Instances[0].Runs[0].State = "asleep" }, "unknown state"},
	} {
		u := served(row.spec)
		if err := u.Check(); err != nil {
			t.Errorf("%s: broken before: %v", row.name, err)
		}
		row.spoil(u)
		if err := u.Check(); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, wanted %q", row.name, err, row.want)
		}
	}
}

// TestQuestions: what a supervisor asks of a unit besides.
func TestQuestions(t *testing.T) {
	u := New(Spec{Instances: 1, Restart: No, StopTimeout: time.Second})
	if at, ok := u.Deadline(); ok || !u.Empty() || u.EndedForGood() || u.Condition(1) != Stopped {
		t.Errorf("new: deadline %v %v, empty %v, ended %v, %s", at, ok, u.Empty(), u.EndedForGood(), u.Condition(1))
	}
	u.Step(birth, Start{})
	if u.Empty() || u.Condition(1) != IsStarting || u.Condition(0) != Stopped || u.Condition(2) != Stopped {
		t.Errorf("started: empty %v, %s", u.Empty(), u.Condition(1))
	}
	u.Step(birth, Exited{Instance: 1, Gen: 1})
	if !u.Empty() || !u.EndedForGood() || u.Condition(1) != EndedWell {
		t.Errorf("ended: empty %v, for good %v, %s", u.Empty(), u.EndedForGood(), u.Condition(1))
	}
	u.Step(birth, Stop{})
	if u.EndedForGood() || u.Condition(1) != Stopped {
		t.Errorf("stopped: for good %v, %s", u.EndedForGood(), u.Condition(1))
	}
}

// TestOldSnapshot: what was saved before a unit knew of steering and pauses is loaded
// as it was, and saved as it was.
func TestOldSnapshot(t *testing.T) {
	const text = `{"Spec":{"Instances":1,"OnDemand":true,"Shared":true,"PerInstance":false,"Notify":true,` +
		`"StartTimeout":30000000000,"StopTimeout":30000000000,"Watchdog":0,"Restart":"on-failure",` +
		`"Delay":100000000,"DelayMax":30000000000,"Reset":10000000000},"Up":true,` +
		`"Instances":[{"Runs":[{"Gen":2,"State":"ready","ReadyAt":3600000000000}],"Because":"exit status 1"}],` +
		`"Watched":false,"LastGen":2,"Upto":1}`
	u := new(Unit)
	if err := json.Unmarshal([]byte(text), u); err != nil {
		t.Fatal(err)
	}
	if again := saved(u); string(again) != text {
		t.Errorf("saved again it is\n%s, was\n%s", again, text)
	}
	if err := u.Check(); err != nil {
		t.Error(err)
	}
	if actions := u.Recover(birth, []Held{{Instance: 1, Gen: 2, Running: true}}); len(actions) > 0 {
		t.Errorf("recovered, it wants %s", saying(u, actions))
	}
}
