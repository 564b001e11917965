package sys

import (
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A supervisor's timers may be late, so that Go looks after it less often; those of who
// starts it, and of the services that he starts, may not.
func TestSelfHasSlackTimers(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	slack := func() int {
		n, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		if err != nil {
			t.Skip("timer slack: ", err)
		}
		return n
	}
	before := slack()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s, err := StartSelf("/bin/sh", []string{"sh", "-c", "cat /proc/self/timerslack_ns >&3"}, []string{"PATH=/usr/bin:/bin"}, []int{int(w.Fd())})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	s.Wait()
	s.Reap()
	if got := strings.TrimSpace(string(text)); err != nil || got != strconv.Itoa(max(before, timerSlack)) {
		t.Errorf("the child's is %q, %v", got, err)
	}
	if after := slack(); after != before {
		t.Errorf("ours was %d and is %d", before, after)
	}
}
