package sys

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// ownPidfdID is what LISTEN_PIDFDID is to say of this process; "" where pidfds have
// no number of their own.
func ownPidfdID() string {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	return idOf(fd)
}

func idOf(pidfd int) string {
	inode, err := Inode(pidfd)
	if err != nil || !pidfs() {
		return ""
	}
	return strconv.FormatUint(inode, 10)
}

// A program is told the number of its own pidfd, as its parent sees it, whichever way
// it was started; and not what was in the environment before.
func TestPidfdID(t *testing.T) {
	needDirect(t)
	out := newPipe(t)
	for _, w := range ways {
		s := spec("sh", "-c", `printf "${LISTEN_PIDFDID-not set}"`)
		s.Env, s.PidfdEnv, s.Output = append(s.Env, "LISTEN_PIDFDID=1"), []string{"LISTEN_PIDFDID"}, out.in
		child, execed, err := w.start(&s)
		if err != nil {
			t.Fatal(err)
		}
		want := "not set"
		if pidfs() {
			want = idOf(child.Handle())
		}
		if err := execed(); err != nil {
			t.Fatal(err)
		}
		child.Wait()
		child.Reap()
		if got := out.drain(t); got != want {
			t.Errorf("%s: %s, want %s", w.name, got, want)
		}
	}
}
