package machine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestEnumeration goes through every sequence of up to six events from a small
// alphabet, from a unit wished up, for several specifications, and looks at the
// unit after every one of them.
func TestEnumeration(t *testing.T) {
	for name, words := range map[string]string{
		"boot":               "boot notify start=5s stop=2s",
		"boot always":        "boot restart=always watchdog=3s",
		"boot no":            "boot instances=2 restart=no",
		"overlap":            "boot notify instances=2 overlap=1s",
		"on demand":          "shared own instances=2 notify stop=0s",
		"on demand once":     "shared restart=no reset=0s",
		"siblings":           "boot steered flush instances=2 restart=always delay=0s reset=0s",
		"one at a time":      "boot steered flush exclusive instances=2 notify",
		"siblings on demand": "steered own exclusive instances=2 delay=0s stop=1s",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			depth := 6
			if testing.Short() {
				depth = 4
			}
			e := enumeration{t: t, alphabet: alphabet}
			if strings.Contains(words, "steered") { // more letters, shorter words
				e.alphabet, depth = append(slices.Clip(alphabet), siblings...), depth-1
			}
			u := New(parseSpec(t, strings.Fields(words)))
			u.Step(birth, Start{})
			e.visit(branch{u: u, now: birth}, depth)
			t.Logf("%d sequences", e.count)
		})
	}
}

// A branch is a unit at a time, and the runs that the keeper would list.
type branch struct {
	u    *Unit
	now  Instant
	path []string
}

type enumeration struct {
	t        *testing.T
	alphabet []letter
	count    int
}

// A letter is an event that depends on what is there. It returns nil where there is
// no such event.
type letter struct {
	name  string
	event func(u *Unit) Event
}

// oldest and newest name the first and the last run of the first instance that has one.
func pick(u *Unit, newest bool) (n int, run Run, ok bool) {
	for i := range u.Instances {
		if runs := u.Instances[i].Runs; len(runs) > 0 {
			if newest {
				return i + 1, runs[len(runs)-1], true
			}
			return i + 1, runs[0], true
		}
	}
	return 0, Run{}, false
}

func ofRun(newest bool, event func(n int, gen uint64) Event) func(*Unit) Event {
	return func(u *Unit) Event {
		if n, run, ok := pick(u, newest); ok {
			return event(n, run.Gen)
		}
		return nil
	}
}

var alphabet = []letter{
	{"start", func(*Unit) Event { return Start{} }},
	{"stop", func(*Unit) Event { return Stop{} }},
	{"restart", func(u *Unit) Event { return Replace{Upto: u.LastGen} }},
	{"connected", func(u *Unit) Event { return Connected{Instance: 0} }},
	{"tick", func(u *Unit) Event { return Tick{} }}, // at the deadline
	{"ready", ofRun(true, func(n int, gen uint64) Event { return Notified{Instance: n, Gen: gen, Ready: true} })},
	{"stopping", ofRun(false, func(n int, gen uint64) Event { return Notified{Instance: n, Gen: gen, Stopping: true} })},
	{"left", ofRun(false, func(n int, gen uint64) Event { return Exited{Instance: n, Gen: gen, Jitter: 0.5} })},
	{"died", ofRun(true, func(n int, gen uint64) Event {
		return Exited{Instance: n, Gen: gen, Status: Status{Signal: 11}, Jitter: 0.5}
	})},
	{"respec", func(u *Unit) Event {
		spec := u.Spec
		spec.Instances = 3 - min(spec.Instances, 2) // two become one, one becomes two
		return Respec{Spec: spec, Upto: u.LastGen}
	}},
}

// siblings are the letters for units whose instances have sockets of their own.
var siblings = []letter{
	{"scale", func(u *Unit) Event { return Scale{Instances: 3 - min(u.Spec.Instances, 2)} }},
	{"pause", func(u *Unit) Event { return Pause{} }},
	{"resume", func(u *Unit) Event { return Resume{} }},
	{"called", func(u *Unit) Event { return Connected{Instance: 2} }},
	{"emptied", func(u *Unit) Event {
		for i := range u.Instances {
			if u.Instances[i].EmptyBy != 0 {
				return Emptied{Instance: i + 1}
			}
		}
		return nil
	}},
	{"other ready", func(u *Unit) Event { // so that a sibling can take the traffic
		if in := u.instance(2); in != nil && len(in.Runs) > 0 {
			return Notified{Instance: 2, Gen: in.Runs[len(in.Runs)-1].Gen, Ready: true}
		}
		return nil
	}},
}

func (e *enumeration) visit(b branch, depth int) {
	e.count++
	if depth == 0 {
		return
	}
	for _, l := range e.alphabet {
		ev := l.event(b.u)
		if ev == nil {
			continue
		}
		next := branch{u: clone(b.u), now: b.now + Instant(time.Millisecond), path: append(slices.Clip(b.path), l.name)}
		if _, tick := ev.(Tick); tick {
			at, ok := b.u.Deadline()
			if !ok {
				continue
			}
			next.now = at
		}
		if text := e.step(b, next, ev); text != "" {
			e.t.Fatalf("%s: %s\n%s", strings.Join(next.path, ", "), text, saved(next.u))
		}
		e.visit(next, depth-1)
	}
}

// step takes the event in and returns what is wrong afterwards.
func (e *enumeration) step(before, b branch, ev Event) string {
	actions := b.u.Step(b.now, ev)
	if err := b.u.Check(); err != nil {
		return err.Error()
	}
	for _, a := range actions {
		if text := plausible(before, b, ev, a); text != "" {
			return text
		}
	}
	at, ok := b.u.Deadline()
	if ok && at <= b.now {
		return "a deadline in the past"
	}
	if again := b.u.Step(b.now, Tick{}); len(again) > 0 {
		return "settled twice is not settled once: " + saying(b.u, again)
	}
	if then, _ := b.u.Deadline(); then != at {
		return "settled twice, the deadline has moved"
	}
	if e.count%64 == 0 {
		if u := reload(e.t, b.u); !bytes.Equal(saved(u), saved(b.u)) {
			return "a snapshot does not round-trip"
		}
		if again := clone(b.u); len(actions) > 0 { // hearing it twice is harmless
			if _, news := ev.(Exited); news && spawns(again.Step(b.now, ev)) > 0 {
				return "an exit heard twice starts another"
			}
		}
	}
	return ""
}

// plausible looks at one action in the light of the unit before and after.
func plausible(before, b branch, ev Event, a Action) string {
	switch a := a.(type) {
	case Spawn:
		if a.Gen <= before.u.LastGen {
			return "a generation used twice"
		}
		in := before.u.instance(a.Instance)
		if now := b.u.instance(a.Instance); b.u.Paused || b.u.Spec.Exclusive && len(now.Runs) > 1 {
			return "a start while paused, or beside a run that must be alone"
		}
		forgives := false
		switch ev.(type) {
		case Start, Replace, Respec, Stop:
			forgives = true
		}
		if in != nil && len(in.Runs) == 0 && in.Until > b.now && !forgives {
			return "a start before its backoff is over"
		}
		if _, called := ev.(Connected); in != nil && len(in.Runs) == 0 && b.u.Spec.OnDemand && !in.Called && !called {
			return "a start without a caller"
		}
	case Terminate:
		run := b.u.run(a.Instance, a.Gen)
		if run == nil || run.State != Draining {
			return "told to leave, and not draining"
		}
		in := b.u.instance(a.Instance)
		if run.Asked && b.u.wished(a.Instance) && in.Runs[len(in.Runs)-1].State != Ready && !(b.u.Spec.Exclusive && in.Away) {
			return "the last run of a wished instance is told to leave"
		}
	case Flush:
		if in := b.u.instance(a.Instance); in.FlushAt > b.now && !in.Flushed || !b.u.siblingServes(a.Instance) || b.u.Weights[a.Instance-1] > 0 {
			return "flushed before its time, or with nobody to take it"
		}
	case Kill:
		if was := before.u.run(a.Instance, a.Gen); was == nil || was.State != Draining || was.Deadline == 0 || was.Deadline > b.now {
			return "killed before its time"
		}
	}
	return ""
}

func spawns(actions []Action) (n int) {
	for _, a := range actions {
		if _, ok := a.(Spawn); ok {
			n++
		}
	}
	return n
}

func clone(u *Unit) *Unit {
	v := *u
	v.Weights = slices.Clone(u.Weights)
	v.Instances = slices.Clone(u.Instances)
	for i := range v.Instances {
		v.Instances[i].Runs = slices.Clone(u.Instances[i].Runs)
	}
	return &v
}

func saved(u *Unit) []byte {
	text, err := json.Marshal(u)
	if err != nil {
		panic(fmt.Sprint("a unit that cannot be saved: ", err))
	}
	return text
}
