package sys

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// busyProgram makes a program whose exec hangs until release is called, as on a
// dead mount: we hold a lease on it (fcntl(2), F_SETLEASE), which the kernel wants
// back before anybody may open the file.
func busyProgram(t *testing.T, parent string) (path string, release func()) {
	t.Helper()
	b, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp(parent, "sockd-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	path = filepath.Join(dir, "program")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	// Instead of SIGIO, which would end us; Go takes this one for its own.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETSIG, int(unix.SIGURG)); err != nil {
		t.Skipf("no leases here: %v", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skipf("no leases here: %v", err)
	}
	return path, func() { unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK) }
}

// An exec that hangs keeps neither Start nor anybody else waiting: not another
// start, not the garbage collection, for which all of the process must stand still.
func TestHangingExec(t *testing.T) {
	needDirect(t)
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			path, release := busyProgram(t, t.TempDir())
			s := spec(path)
			s.Output = -1
			child, execed, err := w.start(&s)
			if err != nil {
				t.Fatal(err)
			}
			told := make(chan error, 1)
			go func() { told <- execed() }()
			runtime.GC()
			for range 3 {
				if o := w.run(t, newPipe(t), spec("/bin/true")); o.failure != nil || o.status != (Status{}) {
					t.Error(o)
				}
			}
			select {
			case err := <-told:
				t.Fatalf("it should hang, but: %v", err)
			default:
			}
			release()
			if err := <-told; err != nil {
				t.Error(err)
			}
			if st, err := child.Wait(); err != nil || st != (Status{}) {
				t.Error(st, err)
			}
			child.Reap()
		})
	}
}

// A child that hangs can be killed, and is known by its right pid before it execs.
func TestKilledWhileHanging(t *testing.T) {
	needDirect(t)
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			path, release := busyProgram(t, t.TempDir())
			defer release()
			s := spec(path)
			s.Output = -1
			child, execed, err := w.start(&s)
			if err != nil {
				t.Fatal(err)
			}
			if !child.Alive() {
				t.Error("not alive")
			}
			if err := child.Signal(unix.SIGKILL); err != nil {
				t.Error(err)
			}
			err = execed()
			if f := (*Failure)(nil); err != nil && (!errors.As(err, &f) || f.Stage != "killed") {
				t.Error(err)
			}
			if st, err := child.Wait(); err != nil || st.Signal != int(unix.SIGKILL) {
				t.Error(st, err)
			}
			child.Reap()
		})
	}
}

// Many hanging starts take no more than their share of threads, and what comes
// after them goes by the trampoline.
func TestManyHang(t *testing.T) {
	needDirect(t)
	path, release := busyProgram(t, t.TempDir())
	var children []*Starting
	s := spec(path)
	s.Output = -1
	for range directMost {
		child, ok, err := startDirect(&s)
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		children = append(children, child)
	}
	if _, ok, _ := startDirect(&s); ok {
		t.Error("one more than the most")
	}
	release()
	for _, child := range children {
		if err := child.Execed(); err != nil {
			t.Error(err)
		}
		if st, err := child.Wait(); err != nil || st != (Status{}) {
			t.Error(st, err)
		}
		child.Reap()
	}
	if n := directWaiting.Load(); n != 0 {
		t.Errorf("%d are still counted", n)
	}
}
