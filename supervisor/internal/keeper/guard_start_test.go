package keeper

import (
	"slices"
	"testing"
	"time"
)

// A supervisor that cannot be started, for want of descriptors or processes, is waited for
// longer and longer; that it died once when that is over is no reason for safe mode.
func TestStartsThatFailAreNoDeaths(t *testing.T) {
	l, err := NewLocal(Options{NoCgroup: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := newGuard(l, Duty{Argv: []string{"no\x00program"}})
	var delays []time.Duration
	for range 12 {
		if _, done, err := g.supervise(); err == nil || done {
			t.Fatalf("a supervisor was started: done %v", done)
		}
		delays = append(delays, g.delay())
	}
	want := []time.Duration{0, 20, 40, 80, 160, 320, 640, 640, 640, 640, 640, 640}
	for i := range want {
		want[i] *= time.Millisecond
	}
	if !slices.Equal(delays, want) {
		t.Errorf("delays %v, not %v", delays, want)
	}
	if g.early != 0 || g.tries() != g.SafeAfter-1 {
		t.Errorf("%d deaths, %d tries", g.early, g.tries())
	}
	g.early = g.SafeAfter
	g.reason = "exit status 9"
	g.supervise()
	if g.reason != "exit status 9" {
		t.Errorf("the reason for safe mode is %q", g.reason)
	}
}
