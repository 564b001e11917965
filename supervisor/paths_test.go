package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const onPath = `
[service]
role = serve
ready = "notify"
[socket.up]
listen = "unix://./d/up.sock"
mode = "0640"
directory_mode = "0750"
`

// healed waits until the log has said n times that a path is so again.
func (f *fixture) healed(what string, n int) {
	f.t.Helper()
	f.until(what, func() bool { return strings.Count(f.log.String(), what) >= n })
}

// removeFolder takes a folder away with all that is in it, in one moment.
func removeFolder(t *testing.T, dir string) {
	t.Helper()
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(dir + ".gone")
}

// A cleaner removes the path of an idle unit: nobody need do anything, and it is the
// same socket as before.
func TestRemovedPathComesBack(t *testing.T) {
	f := newFixture(t, "up", onPath)
	path := filepath.Join(f.dir, "d", "up.sock")
	hidden := filepath.Join(f.dir, "d", ".up.sock.sockd")
	inode := f.unit("up").Sockets[0].Inode
	for i, remove := range []func() error{
		func() error { return os.Remove(path) },
		func() error { return os.Rename(path, path+".old") },
		func() error { return os.Rename(path, hidden+".old") },
	} {
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		f.healed("path restored", i+1)
		os.Remove(path + ".old")
		os.Remove(hidden + ".old")
	}
	if _, err := ask("unix", path); err != nil {
		t.Fatal(err)
	}
	st := f.unit("up").Sockets[0]
	if st.Inode != inode || st.Error != "" {
		t.Errorf("the socket was %d and is %+v", inode, st)
	}
	f.stop()
	if _, err := os.Lstat(filepath.Join(f.dir, "d")); err == nil {
		t.Error("its folder is left")
	}
}

// With its folder gone the old socket has no way back: an idle unit gets a new one
// at once, with the modes asked for.
func TestRemovedFolderComesBack(t *testing.T) {
	f := newFixture(t, "up", onPath)
	dir := filepath.Join(f.dir, "d")
	inode := f.unit("up").Sockets[0].Inode
	removeFolder(t, dir)
	f.until("a new socket", func() bool { return f.unit("up").Sockets[0].Inode != inode })
	f.healed("path made again", 1)
	for name, want := range map[string]os.FileMode{dir: 0o750, filepath.Join(dir, "up.sock"): 0o640} {
		if st, err := os.Stat(name); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	if _, err := ask("unix", filepath.Join(dir, "up.sock")); err != nil {
		t.Fatal(err)
	}
}

// A run has the old socket: status says that nobody can reach it, until an operator
// asks; then the run is replaced by one with the new socket.
func TestRemovedFolderOfALiveRun(t *testing.T) {
	for _, verb := range []string{"restart", "start", "reload"} {
		f := newFixture(t, "up", onPath)
		path := filepath.Join(f.dir, "d", "up.sock")
		before, err := ask("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		removeFolder(t, filepath.Dir(path))
		f.until("status says it", func() bool { return strings.Contains(f.unit("up").Sockets[0].Error, "sockd restart up makes it again") })
		if verb == "reload" {
			err = f.s.Reload(t.Context())
		} else {
			f.do(verb, "up", Done)
		}
		if err != nil {
			t.Fatal(err)
		}
		after, err := ask("unix", path)
		if err != nil || after.pid == before.pid {
			t.Errorf("%s: %+v, then %+v, %v", verb, before, after, err)
		}
		if st := f.unit("up").Sockets[0]; st.Error != "" {
			t.Errorf("%s: %+v", verb, st)
		}
		f.stop()
	}
}

// What somebody has put in its place is his, until he takes it away.
func TestPathTakenBySomebodyElse(t *testing.T) {
	f := newFixture(t, "up", onPath)
	path := filepath.Join(f.dir, "d", "up.sock")
	other := filepath.Join(f.dir, "d", "other")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	f.until("status says it", func() bool {
		return strings.Contains(f.unit("up").Sockets[0].Error, "somebody else has put a file there")
	})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f.until("it is back", func() bool { return f.unit("up").Sockets[0].Error == "" })
	if _, err := ask("unix", path); err != nil {
		t.Fatal(err)
	}
}

// Nobody looked when it was removed: the next supervisor does, before anything else.
func TestPathRemovedBetweenSupervisors(t *testing.T) {
	f := newFixture(t, "up", onPath)
	inode := f.unit("up").Sockets[0].Inode
	f.crash()
	path := filepath.Join(f.dir, "d", "up.sock")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f.start()
	f.healed("path restored", 1)
	if _, err := ask("unix", path); err != nil {
		t.Fatal(err)
	}
	if got := f.unit("up").Sockets[0].Inode; got != inode {
		t.Errorf("the socket was %d and is %d", inode, got)
	}
}

// Traffic in the folder is no news, and sockets that are removed in good order stay so.
func TestPathsOfOthersAreNoNews(t *testing.T) {
	f := newFixture(t, "up", onPath, "keeps", strings.ReplaceAll(onPath, "up.sock", "keeps.sock"))
	for range 100 {
		name := filepath.Join(f.dir, "d", "note")
		os.WriteFile(name, nil, 0o600)
		os.Remove(name)
	}
	os.Remove(filepath.Join(f.dir, "keeps.toml"))
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.until("it is gone", func() bool { _, ok := f.s.Unit("keeps"); return !ok })
	if left, _ := filepath.Glob(filepath.Join(f.dir, "d", "*keeps*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(f.dir, "d", "*keeps*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if err := os.Remove(filepath.Join(f.dir, "d", "up.sock")); err != nil { // news that is heard after all that
		t.Fatal(err)
	}
	f.healed("path restored", 1)
	if n := strings.Count(f.log.String(), "path "); n > 1 {
		t.Errorf("said %d times something of paths:\n%s", n, f.log)
	}
}
