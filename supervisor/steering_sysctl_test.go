package supervisor

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
)

// An administrator who lets connections move, or forbids it, under a running sockd is
// heard with the next reload.
func TestReloadHearsOfMigration(t *testing.T) {
	t.Setenv(levelVariable, "classic-bpf")
	var on atomic.Bool
	before := migration
	migration = on.Load
	t.Cleanup(func() { migration = before }) // after the supervisor has ended
	f := newFixture(t, "web", fmt.Sprintf(siblings, "", 2, ""))
	if level := f.steered("web"); level != "classic-bpf" {
		t.Skip("steered by " + level + " here")
	}
	for _, want := range []bool{false, true, false} {
		on.Store(want)
		if err := f.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		var can bool
		if err := f.s.ask(t.Context(), func() error { can = f.s.units["web"].machine.Spec.CanFlush; return nil }); err != nil {
			t.Fatal(err)
		}
		if can != want {
			t.Errorf("queues can be moved %t, want %t", can, want)
		}
		if lacks := f.unit("web").Sockets[0].Lacks; strings.Contains(lacks, "until it is back") == want {
			t.Errorf("migration %t: clients miss %q", want, lacks)
		}
	}
}
