package machine

import (
	"slices"
	"testing"
	"time"
)

func TestOversleptHearsBeforeItJudges(t *testing.T) {
	u := New(Spec{Instances: 2, Notify: true, StartTimeout: time.Second, Watchdog: time.Minute})
	u.Step(birth, Start{})
	u.Step(birth, Notified{Instance: 2, Gen: 2, Ready: true})
	late := birth.Add(time.Hour)
	u.Overslept(late)
	if actions := u.Step(late, Notified{Instance: 2, Gen: 2, Alive: true}); slices.ContainsFunc(actions, isTerminate) {
		t.Errorf("judged unheard: %s", saying(u, actions))
	}
	if actions := u.Step(late.Add(hearing), Tick{}); !slices.Contains(actions, Action(Terminate{Instance: 1, Gen: 1})) {
		t.Errorf("what it did not say was heard: %s", saying(u, actions))
	}
	if actions := u.Step(late.Add(time.Minute), Tick{}); !slices.Contains(actions, Action(Terminate{Instance: 2, Gen: 2, Abort: true})) {
		t.Errorf("silence was heard: %s", saying(u, actions))
	}
}

func isTerminate(a Action) bool { _, ok := a.(Terminate); return ok }
