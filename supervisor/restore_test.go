package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"golang.org/x/sys/unix"
)

// serving is how many listeners this process serves with package http.
func serving() int {
	stacks := make([]byte, 1<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "\nnet/http.(*Server).Serve(")
}

// A control socket that is made anew takes the place of the one whose path is gone, and
// that is closed: a cleaner that comes each night takes no descriptor for good.
func TestRestoredControlSocketReplacesTheOldOne(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	for round := range 3 {
		if err := os.Remove(filepath.Join(f.dir, "run", ControlSocket)); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "a new one", func() bool { return strings.Count(f.log.String(), "runtime folder restored") > round })
		if _, err := NewClient(filepath.Join(f.dir, "run")).Units(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, fmt.Sprintf("one listener, not %d", serving()), func() bool { return serving() == 1 })
}

// N9: another sockd has taken the folder while the lock was missing. Nobody waits for it in
// the loop; when it has gone, the folder is taken back.
func TestFolderThatAnotherHasTaken(t *testing.T) {
	was := lockPatience
	t.Cleanup(func() { lockPatience = was })
	lockPatience = time.Hour
	f := newFixture(t, "web", onDemand)
	run := filepath.Join(f.dir, "run")
	other, err := os.OpenFile(filepath.Join(run, "other"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	fmt.Fprintln(other, os.Getppid()) // who lives
	if err := tryLock(int(other.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other.Name(), filepath.Join(run, lockName)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(run, ControlSocket)); err != nil {
		t.Fatal(err)
	}
	f.logged("in use by sockd with pid", 1)
	f.do("restart", "web", Done) // the loop turns
	if _, err := os.Lstat(filepath.Join(run, ControlSocket)); err == nil {
		t.Error("there is a control socket in another's folder")
	}
	other.Close()
	f.logged("runtime folder restored", 1)
	if _, err := NewClient(run).Units(t.Context()); err != nil {
		t.Error(err)
	}
	if n := strings.Count(f.log.String(), "runtime folder lost"); n != 1 {
		t.Errorf("it was said %d times that the folder is lost", n)
	}
}

// A controlling keeper does not hold the next few control sockets.
type controlling struct {
	keeper.Keeper
	refused atomic.Int32
}

func (k *controlling) Hold(name string, fd int) error {
	if name == "control" && k.refused.Add(-1) >= 0 {
		return unix.EMFILE
	}
	return k.Keeper.Hold(name, fd)
}

// What could not be restored is tried again, though nothing more happens in the folder.
func TestRestoringIsTriedAgain(t *testing.T) {
	f := prepare(t, "web", onDemand)
	k := &controlling{Keeper: f.keeper}
	f.wrap = k
	f.start()
	k.refused.Store(3)
	if err := os.Remove(filepath.Join(f.dir, "run", ControlSocket)); err != nil {
		t.Fatal(err)
	}
	f.logged("runtime folder restored", 1)
	if _, err := NewClient(filepath.Join(f.dir, "run")).Units(t.Context()); err != nil {
		t.Error(err)
	}
	if n := k.refused.Load(); n != -1 {
		t.Errorf("after 3 refusals there were %d tries, want 1", -n)
	}
	if n := strings.Count(f.log.String(), "runtime folder lost"); n != 1 {
		t.Errorf("it was said %d times that the folder is lost", n)
	}
}
