package sys

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFindCgroup(t *testing.T) {
	const hybrid = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
`
	const pure = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	const part = "30 23 0:26 /docker/abc /my\\040cgroup ro - cgroup2 cgroup ro\n"
	tests := []struct{ name, mounts, path, want string }{
		{"hybrid", hybrid, "/", "/sys/fs/cgroup/unified"},
		{"hybrid, deeper", hybrid, "/a/b", "/sys/fs/cgroup/unified/a/b"},
		{"pure", pure, "/user.slice", "/sys/fs/cgroup/user.slice"},
		{"part of the tree", part, "/docker/abc/x", "/my cgroup/x"},
		{"the part itself", part, "/docker/abc", "/my cgroup"},
		{"outside of the part", part, "/docker/abcd", ""},
		{"above a namespace", pure, "/../x", ""},
		{"none", "31 23 0:28 / / rw - ext4 /dev/vda rw\n", "/", ""},
		{"garbage", "x\n - \n1 2 3 - cgroup2 x\n", "/", ""},
	}
	for _, tt := range tests {
		got, ok := v2Dir(tt.mounts, tt.path)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: %q %v, want %q", tt.name, got, ok, tt.want)
		}
	}
	if path, ok := v2Path("9:name=systemd:/\n0::/x y\n"); !ok || path != "/x y" {
		t.Error(path, ok)
	}
	if path, ok := v2Path("9:name=systemd:/\n"); ok {
		t.Error(path)
	}
}

func openCgroup(t testing.TB) *Cgroup {
	t.Helper()
	c, err := OpenCgroup()
	if errors.Is(err, ErrNoCgroup) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if _, err := os.Stat(c.dir); err == nil {
			t.Errorf("%s stays", c.dir)
		}
	})
	return c
}

// A child is born in its leaf, is found there, and nothing of it survives KillAll,
// frozen or not, below the leaf or in it.
func TestLeaf(t *testing.T) {
	c := openCgroup(t)
	for _, frozen := range []bool{false, true} {
		leaf, err := c.NewLeaf()
		if err != nil {
			t.Fatal(err)
		}
		s := spec("sh", "-c", `mkdir -p `+leaf.dir+`/below && sleep 1000 & sleep 1000 & sleep 1000 & wait`)
		s.Leaf = leaf
		child := begin(t, s)
		leaf.Born()
		if !leaf.Has(child.Pid) || leaf.Has(os.Getpid()) {
			t.Error("not where it should be")
		}
		if empty, err := leaf.Empty(); empty || err != nil {
			t.Error("empty", err)
		}
		pids, err := leaf.Procs()
		if err != nil || !slices.Contains(pids, child.Pid) {
			t.Error(pids, err)
		}
		if frozen {
			if err := writeFile(leaf.dir+"/cgroup.freeze", "1"); err != nil {
				t.Fatal(err)
			}
		}
		if err := leaf.KillAll(); err != nil {
			t.Fatal(err)
		}
		if empty, err := leaf.Empty(); !empty || err != nil {
			t.Error("not empty", err)
		}
		if st, err := child.Wait(); err != nil || st.Signal != 9 {
			t.Error(st, err)
		}
		child.Reap()
		if err := leaf.Remove(); err != nil {
			t.Error(err)
		}
		if leaf.KillAll() == nil || leaf.Kill() == nil {
			t.Error("killed in a leaf that has gone")
		}
	}
}

// hoppers starts a shell whose children each have a child and end, without end, and
// returns when they do.
func hoppers(t *testing.T, leaf *Leaf) *Starting {
	t.Helper()
	begun := filepath.Join(t.TempDir(), "begun")
	if err := unix.Mkfifo(begun, 0o600); err != nil {
		t.Fatal(err)
	}
	s := spec("sh", "-c", `hop() { hop & }; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do hop; done; echo >`+begun+`; sleep 1000`)
	s.Leaf = leaf
	child := begin(t, s)
	if _, err := os.ReadFile(begun); err != nil {
		t.Fatal(err)
	}
	return child
}

// Before Linux 5.14 processes are killed one by one; those that fork meanwhile, and are
// gone before anybody has seen them, do not escape.
func TestLeafWithoutKill(t *testing.T) {
	c := openCgroup(t)
	defer func(name string) { killFile = name }(killFile)
	killFile = "not.there"
	for range 5 {
		leaf, err := c.NewLeaf()
		if err != nil {
			t.Fatal(err)
		}
		child := hoppers(t, leaf)
		leaf.Born()
		killed := make(chan error, 1)
		go func() { killed <- leaf.KillAll() }()
		select {
		case err := <-killed:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(time.Minute):
			t.Error("somebody has escaped")
			writeFile(leaf.dir+"/cgroup.kill", "1")
			<-killed
		}
		child.Reap()
		if err := leaf.Remove(); err != nil {
			t.Error(err)
		}
	}
}

// What a dead supervisor has left is taken away, as far as nobody lives in it.
func TestSweepDead(t *testing.T) {
	c := openCgroup(t)
	own := filepath.Dir(c.dir)
	dead := begin(t, spec("true"))
	dead.Wait()
	dead.Reap()
	made := func(name string) string {
		dir := filepath.Join(own, name)
		if err := os.MkdirAll(filepath.Join(dir, "run-1", "deeper"), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { removeTree(dir) })
		return dir
	}
	number := strings.TrimPrefix(filepath.Base(c.dir), cgroupsOf(pidNamespace()))
	number, _, _ = strings.Cut(number, "-")
	gone := made(cgroupsOf(pidNamespace()) + fmt.Sprint(dead.Pid) + "-77")
	ours := made(cgroupsOf(pidNamespace()) + number + "-77")
	foreign := made("sockd-test-of-others")
	elsewhere := made(cgroupsOf(pidNamespace()+1) + fmt.Sprint(dead.Pid) + "-77") // who knows who has that pid there
	sweepDead(own)
	if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for _, dir := range []string{ours, foreign, elsewhere} {
		if _, err := os.Stat(filepath.Join(dir, "run-1", "deeper")); err != nil {
			t.Error(err)
		}
	}
	inhabited := made(cgroupsOf(pidNamespace()) + fmt.Sprint(dead.Pid) + "-78")
	fd, err := unix.Open(inhabited+"/run-1", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := spec("sleep", "1000")
	s.Leaf = &Leaf{dir: inhabited + "/run-1", fd: fd}
	child := begin(t, s)
	unix.Close(fd)
	sweepDead(own)
	if _, err := os.Stat(inhabited + "/run-1"); err != nil {
		t.Error(err)
	}
	child.Signal(unix.SIGKILL)
	child.Wait()
	child.Reap()
}
