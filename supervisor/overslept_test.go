package supervisor

import (
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor/internal/machine"
)

// A supervisor that was stopped for longer than the start timeout finds what was said
// meanwhile, of one run before the other: that one is not ended for having been silent.
func TestStoppedForLongerThanTheStartTimeout(t *testing.T) {
	f := newFixture(t, "web", "[service]\nrole = serve TEST_READY=no\nready = \"notify\"\nstart = \"boot\"\ninstances = 2\nstart_timeout = \"1h\"\n")
	f.awaitState("web", 1, "starting")
	f.awaitState("web", 2, "starting")
	err := f.s.ask(t.Context(), func() error {
		u := f.s.units["web"]
		for i := range u.machine.Instances {
			u.machine.Instances[i].Runs[0].Deadline = f.s.now().Add(-time.Minute)
		}
		f.s.handle(u, machine.Notified{Instance: 1, Gen: u.machine.Instances[0].Runs[0].Gen, Ready: true})
		if run := u.machine.Instances[1].Runs[0]; run.State != machine.Starting {
			t.Errorf("the other is %s: %s", run.State, run.Because)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
