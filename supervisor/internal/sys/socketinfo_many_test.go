package sys

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A look at many Unix sockets asks the kernel for all of them once: one by one it would
// go through all there are for each.
func TestQueuesOfManyUnixSockets(t *testing.T) {
	var q Queues
	var last *Bound
	for range oneByOne + 8 {
		last = mustBind(t, "unix", "@sockd-test-"+randomHex(8), none())
		if q.unix != nil {
			continue
		}
		if queued, backlog, _, err := q.Queue(last.FD); queued != 0 || backlog == 0 || err != nil {
			t.Fatalf("queued %d of %d, %v", queued, backlog, err)
		}
	}
	if q.asked != oneByOne {
		t.Fatalf("asked for %d one by one, want %d", q.asked, oneByOne)
	}
	before := last
	defer unix.Close(dialRaw(t, before))
	awaitQueued(t, before.FD, 1)
	if queued, _, _, err := q.Queue(before.FD); queued != 1 || err != nil {
		t.Errorf("queued %d, %v; want 1", queued, err)
	}
	if q.unix == nil || q.asked != oneByOne {
		t.Errorf("asked for %d one by one, and all at once %t", q.asked, q.unix != nil)
	}
	// One that has come since is found too.
	late := mustBind(t, "unix", "@sockd-test-"+randomHex(8), none())
	defer unix.Close(dialRaw(t, late))
	awaitQueued(t, late.FD, 1)
	if queued, _, _, err := q.Queue(late.FD); queued != 1 || err != nil {
		t.Errorf("one that has come since: queued %d, %v; want 1", queued, err)
	}
}
