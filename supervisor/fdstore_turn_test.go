package supervisor

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/sys"
	"golang.org/x/sys/unix"
)

// A service that sends descriptors as fast as it can keeps nobody waiting: hundreds are
// looked at before others have their turn, not tens of thousands.
func TestManyDescriptorsAreHeardInTurns(t *testing.T) {
	f := newFixture(t, "web", keeping)
	order(t, f.address("web", "http"), "list")
	most := slices.Repeat([]int{memfd("x")}, 253) // SCM_MAX_FD
	defer unix.Close(most[0])
	for _, c := range []struct {
		name string
		fds  []int
		left int // of three messages
	}{
		{"none", nil, 0},
		{"one each", most[:1], 0},
		{"as many as a message takes", most, 2},
	} {
		var left int
		err := f.s.ask(t.Context(), func() error {
			r := f.s.units["web"].runs[1]
			for range 3 {
				sendWith(t, notifyAddress(t, r.pid), "FDSTORE=1\nFDNAME=much", c.fds...)
			}
			f.s.notifications(r, turn)
			for left = 0; ; left++ {
				if _, err := sys.ReadNotify(r.notify, false); err != nil {
					return nil
				}
			}
		})
		if err != nil || left != c.left {
			t.Errorf("%s: %d of 3 messages wait for the next turn, want %d; %v", c.name, left, c.left, err)
		}
	}
}

// notifyAddress is where a service says things.
func notifyAddress(t *testing.T, pid int) string {
	t.Helper()
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range strings.Split(string(environ), "\x00") {
		if a, ok := strings.CutPrefix(v, "NOTIFY_SOCKET="); ok {
			return a
		}
	}
	t.Fatal("no NOTIFY_SOCKET")
	return ""
}
