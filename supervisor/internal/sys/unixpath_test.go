package sys

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUnixPathIsMade(t *testing.T) {
	dir := t.TempDir()
	old := unix.Umask(0o077) // must not matter
	defer unix.Umask(old)
	o := none()
	o.Mode, o.DirectoryMode = 0o662, 0o751
	b := mustBind(t, "unix", filepath.Join(dir, "a/b/s"), o)
	wantMode(t, b.Path.Path, fs.ModeSocket|0o662)
	wantMode(t, filepath.Join(dir, "a"), fs.ModeDir|0o751)
	wantMode(t, filepath.Join(dir, "a/b"), fs.ModeDir|0o751)
	if b.Address != filepath.Join(dir, "a/b/s") || b.Path.Path != b.Address {
		t.Errorf("address %s, path %s", b.Address, b.Path.Path)
	}
	if len(b.Path.Dirs) != 2 || b.Path.Dirs[0].Path != filepath.Join(dir, "a") {
		t.Errorf("dirs %v", b.Path.Dirs)
	}
	if got, _ := b.Path.is(b.Path.Hidden); !got || filepath.Base(b.Path.Hidden) != ".s.sockd" {
		t.Errorf("hidden link %q: %s", b.Path.Hidden, b.Path.NoHidden)
	}
	text, err := json.Marshal(b.Path)
	if err != nil {
		t.Fatal(err)
	}
	var again UnixPath
	if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(again, *b.Path) {
		t.Errorf("%s: %v", text, err)
	}
	if err := again.Remove(); err != nil { // what a later supervisor does
		t.Fatal(err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Errorf("%v is left", list)
	}
	if err := b.Path.Remove(); err != nil {
		t.Errorf("removing again: %v", err)
	}
}

func TestUnixPathDefaults(t *testing.T) {
	dir := t.TempDir()
	b := mustBind(t, "unix", filepath.Join(dir, "d/s"), Options{UID: -1, GID: -1})
	wantMode(t, b.Path.Path, fs.ModeSocket|0o666)
	wantMode(t, filepath.Join(dir, "d"), fs.ModeDir|0o755)
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode() != want {
		t.Errorf("%s is %v, want %v", path, st.Mode(), want)
	}
}

// The file is created with the owner's bits alone, though the umask forbids nothing,
// and gets the rest last: in no moment can somebody connect who may not.
func TestUnixPathIsNeverTooOpen(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	dir := t.TempDir()
	for mode, want := range map[fs.FileMode]fs.FileMode{0o660: 0o600, 0o006: 0, 0o777: 0o700} {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		// The step of bind that makes the file, to look before the last.
		p := &UnixPath{Path: filepath.Join(dir, mode.String())}
		unlock, err := p.create(fd, mode)
		if err != nil {
			t.Fatal(err)
		}
		unlock()
		wantMode(t, p.Path, fs.ModeSocket|want)
		unix.Close(fd)
	}
}

func TestUnixPathOwner(t *testing.T) {
	needRoot(t)
	o := none()
	o.Mode, o.UID, o.GID = 0o600, 65534, 65533
	b := mustBind(t, "unix", filepath.Join(t.TempDir(), "s"), o)
	var st unix.Stat_t
	if err := unix.Lstat(b.Path.Path, &st); err != nil || st.Uid != 65534 || st.Gid != 65533 {
		t.Errorf("owner %d:%d, %v", st.Uid, st.Gid, err)
	}
	dir := t.TempDir()
	os.Chmod(dir, 0o777)
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o777)
	}
	o.UID = 1234
	out, _ := bindElsewhere(t, bindJob{UID: 65534, Network: "unix", Address: filepath.Join(dir, "s"), Options: o})
	if want := "user, group: chown to 1234:65533: operation not permitted (needs CAP_CHOWN, or be a member of the group)"; !strings.HasSuffix(out.Err, want) {
		t.Errorf("got  %s\nwant …%s", out.Err, want)
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Errorf("%v is left after the failure", list)
	}
}

// abandoned leaves a socket file that nobody serves, as a crash does.
func abandoned(t *testing.T, network, path string) *UnixPath {
	t.Helper()
	b, err := Bind(network, path, none())
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(b.FD)
	return b.Path
}

func TestUnixPathStaleIsReplaced(t *testing.T) {
	for _, before := range []string{"unix", "unixgram", "unixpacket"} {
		for _, after := range []string{"unix", "unixgram", "unixpacket"} {
			t.Run(before+" by "+after, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "s")
				abandoned(t, before, path)
				b := mustBind(t, after, path, none())
				unix.Close(dialRaw(t, b))
				b.close()
				if list, _ := os.ReadDir(dir); len(list) != 0 {
					t.Errorf("%v is left: also the old hidden link must go", list)
				}
			})
		}
	}
}

// A service has unlinked the name, then sockd has crashed: only the hidden link is left.
func TestUnixPathStaleHiddenIsReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	abandoned(t, "unix", path)
	os.Remove(path)
	b := mustBind(t, "unix", path, none())
	if b.Path.Hidden != filepath.Join(dir, ".s.sockd") {
		t.Errorf("hidden link %q (%s)", b.Path.Hidden, b.Path.NoHidden)
	}
}

func TestUnixPathInUseIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	for _, row := range []struct {
		name string
		make func(path string)
		want string // end of the error
	}{
		{"bound, not listening yet", func(path string) {
			fd, _ := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			t.Cleanup(func() { unix.Close(fd) })
			if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
				t.Fatal(err)
			}
		}, ""},
		{"file", func(path string) { os.WriteFile(path, nil, 0o600) }, "(there is a file of that name, which sockd leaves alone)"},
		{"folder", func(path string) { os.Mkdir(path, 0o700) }, "(there is a folder of that name, which sockd leaves alone)"},
		{"FIFO", func(path string) { unix.Mkfifo(path, 0o600) }, "(there is a FIFO of that name, which sockd leaves alone)"},
		{"link into nowhere", func(path string) { os.Symlink("nowhere", path) }, "(there is a symbolic link of that name, which sockd leaves alone)"},
		{"link to a stale socket", func(path string) {
			p := abandoned(t, "unix", path+"-real")
			os.Symlink(p.Path, path)
		}, "(there is a symbolic link of that name, which sockd leaves alone)"},
		{"live listener", func(path string) { mustBind(t, "unix", path, none()) }, ""},
		{"live datagram", func(path string) { mustBind(t, "unixgram", path, none()) }, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(row.name, " ", "-"))
			row.make(path)
			var before, after unix.Stat_t
			unix.Lstat(path, &before)
			_, err := Bind("unix", path, none())
			if !errors.Is(err, unix.EADDRINUSE) || !strings.HasSuffix(err.Error(), row.want) {
				t.Errorf("got  %v\nwant …%s", err, row.want)
			}
			if unix.Lstat(path, &after) != nil || after.Ino != before.Ino {
				t.Error("it was replaced")
			}
		})
	}
}

// Looking whether a listener lives does not call it: no connection arrives there.
func TestUnixPathProbeIsUnnoticed(t *testing.T) {
	b := mustBind(t, "unix", filepath.Join(t.TempDir(), "s"), none())
	if _, err := Bind("unix", b.Address, none()); !errors.Is(err, unix.EADDRINUSE) {
		t.Fatal(err)
	}
	if queued, _, _, err := Queue(b.FD); queued != 0 {
		t.Errorf("%d connections queued, %v", queued, err)
	}
}

// Many start at once over one stale path: one gets it, and its path stays reachable.
func TestUnixPathStaleRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for round := range 300 {
		abandoned(t, "unix", path)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var won []*Bound
		for range 4 {
			wg.Go(func() {
				if b, err := Bind("unix", path, none()); err == nil {
					mu.Lock()
					won = append(won, b)
					mu.Unlock()
				} else if !errors.Is(err, unix.EADDRINUSE) {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("round %d: %d winners", round, len(won))
		}
		if ours, err := won[0].Path.is(path); !ours {
			t.Errorf("round %d: the winner's name is gone: %v", round, err)
		}
		won[0].close()
	}
	if list, _ := os.ReadDir(filepath.Dir(path)); len(list) != 0 {
		t.Errorf("%v is left", list)
	}
}

// The names that sockd makes for itself beside the path are longer than an address
// may be; a stale socket is replaced all the same, and nothing is left.
func TestUnixPathStaleAndLong(t *testing.T) {
	dir := t.TempDir()
	dir = filepath.Join(dir, strings.Repeat("x", 105-len(dir)-1))
	path := filepath.Join(dir, "s")
	p := abandoned(t, "unix", path)
	if p.Hidden == "" {
		t.Error(p.NoHidden)
	}
	b := mustBind(t, "unix", path, none())
	if b.Path.Hidden != p.Hidden {
		t.Errorf("hidden link %q, before %q", b.Path.Hidden, p.Hidden)
	}
	b.close()
	if exists(dir) {
		t.Error("something is left")
	}
}

func TestUnixPathTooLong(t *testing.T) {
	dir := t.TempDir()
	long := filepath.Join(dir, strings.Repeat("x", 107-len(dir)-1))
	b := mustBind(t, "unix", long, none())
	if b.Address != long {
		t.Errorf("bound to %s", b.Address)
	}
	_, err := Bind("unix", long+"y", none())
	if want := "108 bytes are too long for the address of a socket (at most 107)"; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v, want …%s", err, want)
	}
}

// Where others may rename in the folder, the kernel is asked whether the name still
// is our socket before its owner and mode are changed.
func TestUnixPathInASharedFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	a := mustBind(t, "unix", filepath.Join(dir, "a"), none())
	b := mustBind(t, "unix", filepath.Join(dir, "b"), none())
	if list, err := diagUnixSockets(0); err != nil || len(list) == 0 {
		t.Skipf("the kernel has no unix_diag: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(a.Path.Path, &st); err != nil {
		t.Fatal(err)
	}
	if !isSocketFile(a.FD, dir, &st) {
		t.Error("our own file is not known")
	}
	if isSocketFile(b.FD, dir, &st) {
		t.Error("somebody else's file is taken for ours")
	}
}

// Somebody holds the folder's lock for reasons of his own: it takes longer, and works.
func TestUnixPathFolderIsLocked(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	abandoned(t, "unix", path)
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	mustBind(t, "unix", path, none())
}
