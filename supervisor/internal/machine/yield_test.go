package machine

import (
	"testing"
	"time"
)

// Found by a history: an instance that had to give back its turn, since nobody was
// left to take its traffic, gave it back after the one that could have taken it had
// been looked at. Settled twice was not settled once.
func TestATurnGivenBackIsTakenAtOnce(t *testing.T) {
	u := New(Spec{Instances: 4, PerInstance: true, Steered: true, CanFlush: true, Exclusive: true, Step: 2,
		Restart: Always, Delay: time.Second, DelayMax: time.Second, StopTimeout: time.Second, StartTimeout: time.Minute, Notify: true})
	now := Instant(1)
	step := func(ev Event) []Action {
		now = now.Add(10 * time.Millisecond)
		actions := u.Step(now, ev)
		if err := u.Check(); err != nil {
			t.Fatalf("%T: %v", ev, err)
		}
		return actions
	}
	step(Start{})
	for n := 1; n <= 4; n++ {
		step(Notified{Instance: n, Gen: uint64(n), Ready: true})
	}
	step(Exited{Instance: 4, Gen: 4, Status: Status{Code: 1}})
	now = now.Add(2 * time.Second)
	step(Tick{}) // generation 5 is on its way in instance 4
	step(Exited{Instance: 1, Gen: 1, Status: Status{Code: 1}})
	step(Replace{Upto: 5}) // 4 and 2 have the two turns; 1 starts anew, as generation 6
	step(Replace{Upto: 6}) // and is to be replaced before it has served
	step(Notified{Instance: 3, Gen: 3, Stopping: true})
	if again := u.Step(now, Tick{}); len(again) > 0 {
		t.Errorf("settled, and yet: %v", again)
	}
}
