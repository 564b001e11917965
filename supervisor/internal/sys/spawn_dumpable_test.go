package sys

import (
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A child on its way to another user shares our memory, so nobody may attach to us
// meanwhile; afterwards we are as we were. The kernel gives the first; the second
// must wait for the last such child.
func TestDumpableAgain(t *testing.T) {
	needDirect(t)
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user")
	}
	if dumpable(t) != 1 {
		t.Skip("not dumpable to begin with")
	}
	path, release := busyProgram(t, os.TempDir()) // where another user can go
	defer release()
	s := spec(path)
	s.Output, s.Credential = -1, unprivileged()
	child, execed, err := directly(&s)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(longWait); dumpable(t) == 1; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("dumpable while a child of another user has our memory")
		}
	}
	quick := spec("/bin/true")
	quick.Credential = unprivileged()
	if o := ways[1].run(t, newPipe(t), quick); o.failure != nil || o.status != (Status{}) {
		t.Error(o)
	}
	if got := dumpable(t); got == 1 {
		t.Error("dumpable after the first child, while the second is on its way")
	}
	release()
	if err := execed(); err != nil {
		t.Error(err)
	}
	if got := dumpable(t); got != 1 {
		t.Errorf("dumpable is %d afterwards", got)
	}
	child.Wait()
	child.Reap()
}

func dumpable(t *testing.T) int {
	t.Helper()
	n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
