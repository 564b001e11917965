package supervisor

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/steer"
)

// A queue that cannot be moved is closed with its instance. The group forgets the
// socket all the same: its descriptor's number is soon another file's, which must not
// be shut down when the place gets a socket again.
func TestGroupForgetsWhatIsClosed(t *testing.T) {
	for _, level := range []string{"classic-bpf", "hash"} {
		t.Run(level, func(t *testing.T) {
			t.Setenv(levelVariable, level)
			f := newFixture(t, "web", fmt.Sprintf(siblings, "", 3, `stop_timeout = "50ms"`))
			f.do("start", "web", Done)
			if probe().Migration {
				t.Skip("queues can be moved here: net.ipv4.tcp_migrate_req is 1")
			}
			address := f.address("web", "http")
			suspend(t, f.unit("web").Instances[2].Runs[0].Pid)
			for f.unit("web").Sockets[2].Queued == 0 {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			}
			if out, err := f.s.scaleUnit(t.Context(), errand{unit: "web", wait: true}, 2); err != nil || out.Outcome != Done {
				t.Fatalf("%+v, %v", out, err)
			}
			err := f.s.ask(t.Context(), func() error { return f.s.units["web"].groups[0].steer.Leave(2) })
			if !errors.Is(err, steer.ErrNoPlace) {
				t.Errorf("the third place: %v, want %v", err, steer.ErrNoPlace)
			}
		})
	}
}
