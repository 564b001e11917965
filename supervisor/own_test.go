package supervisor

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/sys"
	"golang.org/x/sys/unix"
)

// giveAway gives a socket of an instance to another user, as services do that are about
// to become that user.
func (f *fixture) giveAway(instance int) {
	f.t.Helper()
	err := f.s.ask(f.t.Context(), func() error {
		for _, k := range f.s.units["web"].sockets {
			if k.instance == instance {
				return unix.Fchown(k.fd, 65534, 65534)
			}
		}
		return fmt.Errorf("instance %d has no socket", instance)
	})
	if err != nil {
		f.t.Skip("a socket cannot be given to another user here: ", err)
	}
}

// An instance more is to be had also after a service has given its socket to another user.
func TestSocketOfAnotherUserAndScale(t *testing.T) {
	f := newFixture(t, "web", fmt.Sprintf(siblings, "", 2, ""))
	f.do("start", "web", Done)
	f.giveAway(1)
	if out := f.beginScale(4).outcome(); out.Outcome != Done {
		t.Errorf("scaled: %+v", out)
	}
	if n := len(f.unit("web").Sockets); n != 4 {
		t.Errorf("%d sockets, want 4", n)
	}
}

// A queue that is moved away leaves a socket that has its place among its siblings.
func TestSocketOfAnotherUserAndFlush(t *testing.T) {
	f := flushable(t, "")
	f.giveAway(2)
	var uids []uint32
	kill(t, f.unit("web").Instances[1].Runs[0].Pid)
	waitFor(t, "the queue has been moved", func() bool { return watchKeys(t, f)["http"] != 0 })
	err := f.s.ask(t.Context(), func() error {
		for _, k := range f.s.units["web"].sockets {
			var st unix.Stat_t
			if err := unix.Fstat(k.fd, &st); err != nil {
				return err
			}
			uids = append(uids, st.Uid)
			if listening, err := sys.Listening(k.fd); err != nil || !listening {
				return fmt.Errorf("instance %d does not listen: %v", k.instance, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(uids) != 2 || uids[0] != uids[1] {
		t.Errorf("the group's sockets are of users %d", uids)
	}
	if n := strings.Count(f.log.String(), "socket taken back"); n != 1 {
		t.Errorf("%d times said that a socket was taken back, want once", n)
	}
}
