package supervisor

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// runIn runs a supervisor on a runtime folder, and returns how that ended at once.
func runIn(t *testing.T, dir string) error {
	t.Helper()
	f := prepare(t, "early", "[service]\nrole = print TEST_TEXT=started\n")
	f.run = dir
	err := f.tryStart()
	if err != nil && f.out.String() != "" {
		t.Error("something was started all the same")
	}
	return err
}

func TestRuntimeFolder(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name string
		path func(t *testing.T) string
		want string // of the error; "" if there is none
	}{
		{"new", func(t *testing.T) string { return filepath.Join(dir, "a", "b") }, ""},
		{"stale files", func(t *testing.T) string {
			path := filepath.Join(dir, "stale")
			os.Mkdir(path, 0o755)
			os.WriteFile(filepath.Join(path, "lock"), []byte("1\n"), 0o600)
			ln, err := net.Listen("unix", filepath.Join(path, ControlSocket))
			if err != nil {
				t.Fatal(err)
			}
			ln.(*net.UnixListener).SetUnlinkOnClose(false)
			ln.Close()
			return path
		}, ""},
		{"a file", func(t *testing.T) string {
			path := filepath.Join(dir, "file")
			os.WriteFile(path, nil, 0o600)
			return path
		}, "not a "},
		{"a symbolic link", func(t *testing.T) string {
			path := filepath.Join(dir, "link")
			os.Symlink(dir, path)
			return path
		}, "is not a folder"},
		{"too long", func(t *testing.T) string { return filepath.Join(dir, strings.Repeat("long/", 25)) }, "longer than the 107 bytes"},
		{"of somebody else", func(t *testing.T) string {
			path := filepath.Join(dir, "theirs")
			os.Mkdir(path, 0o777)
			if err := os.Chown(path, 65534, 65534); err != nil || os.Getuid() == 65534 {
				t.Skipf("needs root to make a folder for somebody else: %v", err)
			}
			return path
		}, "belongs to uid 65534"},
		{"shared", func(t *testing.T) string {
			path := filepath.Join(dir, "shared")
			os.Mkdir(path, 0o777)
			os.Chmod(path, 0o777|os.ModeSticky)
			return path
		}, "may be written to by others (mode 01777), who could take the place of sockd there; choose another with --runtime-dir"},
		{"a full disk", func(t *testing.T) string { return fullDisk(t) }, "no space left on device"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := runIn(t, c.path(t))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// What is in a folder that was there before may be somebody else's: nobody is locked out.
func TestRuntimeFolderKeepsItsMode(t *testing.T) {
	for _, mode := range []os.FileMode{0o755, 0o700, 0o750, 0o777 | os.ModeSticky} {
		path := filepath.Join(t.TempDir(), "d")
		os.Mkdir(path, 0o700)
		os.Chmod(path, mode)
		err := runIn(t, path)
		st, gone := os.Stat(path)
		if gone != nil {
			t.Fatal(gone)
		}
		if got := st.Mode() &^ os.ModeDir; got != mode || (err != nil) != (mode&0o022 != 0) {
			t.Errorf("%v: it is %v; %v", mode, got, err)
		}
	}
}

// One that ends removes its folder in the moment in which another begins.
func TestRuntimeFolderRemovedMeanwhile(t *testing.T) {
	base := filepath.Join(t.TempDir(), "a")
	f := prepare(t, "early", "[service]\nrole = print TEST_TEXT=started\n")
	f.run = filepath.Join(base, "b")
	removals := 0
	crashpoint = func(point string) {
		if point == "runtime folder: made" && removals < 3 {
			removals++
			os.RemoveAll(base)
		}
	}
	t.Cleanup(func() { crashpoint = nil })
	f.start()
	if f.stop(); removals != 3 {
		t.Errorf("removed %d times", removals)
	}
	if _, err := os.Lstat(base); err == nil {
		t.Error("the folders that it made are left")
	}
}

// Of several below one folder the last takes along what the first has made; what an
// operator has made stays.
func TestLastOneRemovesTheFolderAbove(t *testing.T) {
	for _, made := range []bool{true, false} {
		base := filepath.Join(t.TempDir(), "sockd")
		if !made {
			os.Mkdir(base, 0o755)
		}
		var all []*fixture
		for i := range 3 {
			f := prepare(t)
			f.run = filepath.Join(base, fmt.Sprint("run-", i))
			f.start()
			all = append(all, f)
			if st, err := os.Stat(f.run); err != nil || st.Mode() != 0o700|os.ModeDir {
				t.Errorf("%v, %v", st.Mode(), err)
			}
		}
		for _, f := range all {
			f.stop()
		}
		if _, err := os.Lstat(base); (err != nil) != made {
			t.Errorf("made by sockd: %v; it is gone: %v", made, err != nil)
		}
	}
}

// fullDisk mounts a file system of one page and fills it.
func fullDisk(t *testing.T) string {
	t.Helper()
	path := t.TempDir()
	if err := unix.Mount("none", path, "tmpfs", 0, "size=4k,nr_inodes=2"); err != nil {
		t.Skipf("needs root to mount a small file system: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(path, "full"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(path, "run")
}

func TestSecondSupervisorIsRefused(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	a, err := ask("tcp", f.address("web", "http"))
	if err != nil {
		t.Fatal(err)
	}
	err = runIn(t, filepath.Join(f.dir, "run"))
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by sockd with pid %d", os.Getpid())) {
		t.Errorf("the second: %v", err)
	}
	if again, err := ask("tcp", f.address("web", "http")); err != nil || again != a {
		t.Errorf("the first was disturbed: %+v, %v", again, err)
	}
	f.stop()
	if left, _ := filepath.Glob(filepath.Join(f.dir, "run", "*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if _, err := os.Lstat(filepath.Join(f.dir, "run")); err == nil {
		t.Error("the folder that it made is left")
	}
}

// Of two that begin at once one has the lock before it has said who it is: the other
// waits for that, so that it can name it.
func TestLockOfOneThatHasNotSaidWhoItIs(t *testing.T) {
	was := lockPatience
	t.Cleanup(func() { lockPatience = was })
	lockPatience = 50 * time.Millisecond
	name := filepath.Join(t.TempDir(), lockName)
	open := func() int {
		fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	first, second := open(), open()
	if err := tryLock(first); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := lockFile(second); err == nil {
		t.Error("two have the lock")
	}
	if waited := time.Since(began); waited < lockPatience {
		t.Errorf("waited %v, want at least %v", waited, lockPatience)
	}
}
