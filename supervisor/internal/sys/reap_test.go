package sys

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// withoutPidfd runs test as on a kernel that has none.
func withoutPidfd(t *testing.T, test func(t *testing.T)) {
	t.Run("pidfd", test)
	t.Run("no pidfd", func(t *testing.T) {
		before := pidfdWorks
		pidfdWorks = func() bool { return false }
		defer func() { pidfdWorks = before }()
		test(t)
	})
}

func begin(t testing.TB, s Spec) *Starting {
	t.Helper()
	s.Output = -1
	child, err := Start(&s)
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Execed(); err != nil {
		t.Fatal(err)
	}
	return child
}

// A wait leaves the zombie and can be repeated; the reaping takes it away; a
// signal after that reaches nobody.
func TestWaitThenReap(t *testing.T) {
	withoutPidfd(t, func(t *testing.T) {
		for script, want := range map[string]Status{
			"exit 0": {}, "exit 255": {Code: 255}, "kill -9 $$": {Signal: 9}, "kill -TERM $$": {Signal: 15},
		} {
			child := begin(t, spec("sh", "-c", script))
			for range 2 {
				if st, err := child.Wait(); err != nil || st != want {
					t.Errorf("%s: %+v, %v", script, st, err)
				}
			}
			if child.Alive() {
				t.Errorf("%s: a zombie lives", script)
			}
			if s, ok := readStat(child.Pid); !ok || s.state != 'Z' {
				t.Errorf("%s: is %c and not a zombie", script, s.state)
			}
			child.Reap()
			child.Reap()
			if _, ok := readStat(child.Pid); ok {
				t.Errorf("%s: not reaped", script)
			}
			if err := child.Signal(unix.SIGKILL); err != nil {
				t.Errorf("%s: signal to nobody: %v", script, err)
			}
		}
	})
}

func TestCore(t *testing.T) {
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil || strings.HasPrefix(string(pattern), "|") || strings.HasPrefix(string(pattern), "/") {
		t.Skipf("cores do not go to the working directory: %s", pattern)
	}
	s := spec("sh", "-c", "ulimit -c unlimited && kill -ABRT $$")
	s.Dir = t.TempDir()
	child := begin(t, s)
	defer child.Reap()
	if st, err := child.Wait(); err != nil || st != (Status{Signal: int(unix.SIGABRT), Core: true}) {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestCallOff(t *testing.T) {
	child := begin(t, spec("sleep", "1000"))
	child.CallOff()
	if err := child.WaitDead(); err != ErrMoved {
		t.Error(err)
	}
	child.Signal(unix.SIGKILL) // and the next wait is a true one
	if err := child.WaitDead(); err != nil {
		t.Error(err)
	}
	if st, err := child.Wait(); err != nil || st.Signal != 9 {
		t.Error(st, err)
	}
	child.Reap()
}

// The end of a process that is somebody else's child.
func TestWaitForForeign(t *testing.T) {
	cmd := exec.Command("sh", "-c", `sh -c 'echo $$; read x; exit 6' <&3 & wait; exit 0`)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{r}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	p, err := Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Alive() || p.Stopped() {
		t.Error("does not live")
	}
	w.Close() // ends it
	st, err := p.Wait()
	if err == nil && st != (Status{Code: 6}) || err != nil && !errors.Is(err, ErrStatusUnknown) {
		t.Errorf("%+v, %v", st, err)
	}
	t.Log(st, err)
	p.Reap()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := Open(pid); !errors.Is(err, unix.ESRCH) {
		t.Error(err)
	}
}

// Orphans reaps the unknown dead, and leaves the known dead to those who wait for
// them, though the kernel names them first. It takes over a whole process.
func TestOrphans(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"=reaper")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func init() { roles["reaper"] = reaper }

func reaper() int {
	bad := 0
	check := func(ok bool, text string, a ...any) {
		if !ok {
			fmt.Printf(text+"\n", a...)
			bad = 1
		}
	}
	if err := Subreaper(); err != nil {
		fmt.Println(err)
		return 1
	}
	o := NewOrphans()
	defer o.Close()
	r, w, _ := os.Pipe()
	output := rawFD(w)
	// Known and dead, first in the kernel's list.
	var known []*Starting
	for i := range 3 {
		s := spec("sh", "-c", fmt.Sprintf("exit %d", 10+i))
		s.Output = -1
		child, err := o.Fork(func() (*Starting, error) { return Start(&s) })
		check(err == nil && child.Execed() == nil, "start: %v", err)
		child.Wait()
		known = append(known, child)
	}
	// Unknown: orphaned at once, and more than are reaped in one go.
	s := spec("sh", "-c", `for i in 1 2 3 4 5 6 7 8 9 10; do (: & : & : & : & :); done; echo done; exec sleep 1000`)
	s.Output = output
	child, err := o.Fork(func() (*Starting, error) { return Start(&s) })
	check(err == nil && child.Execed() == nil, "start: %v", err)
	w.Close()
	io.ReadAtLeast(r, make([]byte, 5), 5)
	children := func() []int {
		pids, err := childrenOf(os.Getpid())
		check(err == nil, "children: %v", err)
		return pids
	}
	tick := time.NewTicker(5 * time.Millisecond)
	for end := time.Now().Add(longWait); len(children()) > len(known)+1 && time.Now().Before(end); <-tick.C {
	}
	check(len(children()) == len(known)+1, "children: %v", children())
	for i, k := range known {
		st, err := k.Wait()
		check(err == nil && st.Code == 10+i, "known %d: %+v %v", i, st, err)
		o.Reap(k.Process)
	}
	child.Signal(unix.SIGKILL)
	child.Wait()
	o.Reap(child.Process)
	check(len(children()) == 0, "children: %v", children())
	check(len(childrenByLook()) == 0, "children: %v", childrenByLook())
	check(len(o.known) == 0, "known: %v", o.known)
	return bad
}

func rawFD(f *os.File) (fd int) {
	raw, _ := f.SyscallConn()
	raw.Control(func(p uintptr) { fd, _ = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 3) })
	return fd
}
