package keeper

import (
	"testing"
	"time"
)

// A supervisor that has handed a new file over has only to end: that it takes notice of
// news meanwhile does not give it more time.
func TestPatienceWithASupervisorThatLeaves(t *testing.T) {
	for name, c := range map[string]struct {
		trial *trial
		waits bool
	}{
		"one that stays":     {nil, false},
		"one that leaves":    {&trial{}, true},
		"one that was tried": {&trial{starts: 1}, false},
	} {
		g := newGuard(nil, Duty{Watchdog: time.Hour})
		g.trial = c.trial
		v := &vigil{guard: g, patience: time.NewTimer(time.Hour)}
		v.told()
		v.heard()
		if waits := v.patience.Stop(); waits != c.waits {
			t.Errorf("%s: the patience has an end: %v", name, waits)
		}
		v.begin(false) // it was stopped, and goes on
		if waits := v.patience.Stop(); waits != c.waits {
			t.Errorf("%s, after it was stopped: the patience has an end: %v", name, waits)
		}
	}
}
