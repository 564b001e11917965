package direct

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Whoever changes his uid becomes undumpable, so that the new user cannot attach
// to him with ptrace; that is a property of the memory (commit_creds in
// kernel/cred.c), and the child's is ours. So we get it back when no child is on
// its way to another user: before that it is what keeps such a user, owner of the
// child, from reading our memory through it.
var becoming transition

type transition struct {
	mu       sync.Mutex
	n        int // children under way
	dumpable int // what we were before the first of them
}

// begin returns what ends it.
func (t *transition) begin() (end func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == 0 {
		t.dumpable, _ = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	}
	t.n++
	return t.end
}

func (t *transition) end() {
	const yes = 1 // SUID_DUMP_USER, the only value that can be set but 0
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n--; t.n == 0 && t.dumpable == yes {
		unix.Prctl(unix.PR_SET_DUMPABLE, yes, 0, 0, 0)
	}
}
