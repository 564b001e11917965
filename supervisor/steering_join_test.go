package supervisor

import (
	"fmt"
	"net"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/steer"
	"github.com/sockd/sockd/supervisor/internal/sys"
)

// A socket that takes a place whose old one cannot leave in peace takes it all the same:
// the old one is about to be closed. So does one that is no more at the end of the list.
func TestNoSocketStaysThatIsToBeClosed(t *testing.T) {
	if probe().Migration {
		t.Skip("queues can be moved here: net.ipv4.tcp_migrate_req is 1")
	}
	t.Setenv(levelVariable, "classic-bpf")
	f := newFixture(t, "web", fmt.Sprintf(siblings, "", 3, ""))
	if level := f.steered("web"); level != "classic-bpf" {
		t.Skip("steered by " + level + " here")
	}
	address := f.address("web", "http")
	var late *sys.Bound
	err := f.s.ask(t.Context(), func() error {
		u := f.s.units["web"]
		g := u.groups[0]
		if err := g.steer.Set([]int{0, 1, 0}); err != nil {
			return err
		}
		c, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		if late, err = sys.Bind("tcp", address, sys.Options{ReusePort: true}); err != nil {
			return err
		}
		old := g.fds[1]
		f.s.joinGroup(u, g, []int{g.fds[0], late.FD})
		for place, want := range map[int]error{1: nil, 2: steer.ErrNoPlace} {
			if err := g.steer.Leave(place); (err == nil) != (want == nil) {
				t.Errorf("place %d leaves: %v, want %v", place, err, want)
			}
		}
		if listening, _ := sys.Listening(old); listening {
			t.Error("the old socket is still in the kernel's group")
		}
		if listening, _ := sys.Listening(late.FD); listening {
			t.Error("the new socket was not the place's: it has not left")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
