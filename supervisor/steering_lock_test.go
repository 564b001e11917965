package supervisor

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// A service cannot put another program, or a filter, in the place of ours: neither through
// the sockets there are at first, nor through those that come when it is scaled.
func TestSocketsThatAreHandedOutAreLocked(t *testing.T) {
	f := newFixture(t, "web", fmt.Sprintf(siblings, "", 2, ""))
	f.do("start", "web", Done)
	if level := f.steered("web"); level != "ebpf" {
		t.Skip("steered by " + level + " here: every change swaps the program")
	}
	if out := f.beginScale(3).outcome(); out.Outcome != Done {
		t.Fatalf("%+v", out)
	}
	var locked []int
	err := f.s.ask(t.Context(), func() error {
		for _, k := range f.s.units["web"].sockets {
			on, err := unix.GetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER)
			if err != nil {
				return err
			}
			locked = append(locked, on)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(locked) != "[1 1 1]" {
		t.Errorf("locked: %v, want all three", locked)
	}
}
