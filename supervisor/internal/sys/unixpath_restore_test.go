package sys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The service has unlinked the path; a client that was queued before and one that
// comes after the restoring are both served by the same socket.
func TestRestoreIsTheSameSocket(t *testing.T) {
	b := mustBind(t, "unix", filepath.Join(t.TempDir(), "s"), none())
	cookie, _ := Cookie(b.FD)
	early := dialRaw(t, b)
	defer unix.Close(early)
	if err := os.Remove(b.Path.Path); err != nil {
		t.Fatal(err)
	}
	if restored, err := b.Path.Restore(); !restored || err != nil {
		t.Fatal(restored, err)
	}
	if restored, err := b.Path.Restore(); restored || err != nil {
		t.Errorf("restoring what is there: %v, %v", restored, err)
	}
	late := dialRaw(t, b)
	defer unix.Close(late)
	for _, client := range []int{early, late} {
		conn, _, err := unix.Accept(b.FD)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(conn, []byte("x")); err != nil {
			t.Fatal(err)
		}
		unix.Close(conn)
		if n, err := unix.Read(client, make([]byte, 1)); n != 1 {
			t.Fatalf("not served: %d, %v", n, err)
		}
	}
	sa, err := unix.Getsockname(b.FD)
	if err != nil || addressOf(sa) != b.Path.Path {
		t.Errorf("getsockname %v, %v", sa, err)
	}
	if again, _ := Cookie(b.FD); again != cookie || cookie == 0 {
		t.Errorf("cookie %d, then %d", cookie, again)
	}
}

func TestRestoreLeavesOthersAlone(t *testing.T) {
	b := mustBind(t, "unix", filepath.Join(t.TempDir(), "s"), none())
	os.Remove(b.Path.Path)
	if err := os.WriteFile(b.Path.Path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	restored, err := b.Path.Restore()
	if restored || !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "somebody else has put a file there") {
		t.Errorf("%v, %v", restored, err)
	}
	if err := b.Path.Remove(); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(b.Path.Path); string(text) != "mine" {
		t.Errorf("the file: %q, %v", text, err)
	}
	if exists(b.Path.Hidden) {
		t.Error("the hidden link is left")
	}
}

// A service that binds the name anew by itself keeps it.
func TestRestoreLeavesAnotherSocketAlone(t *testing.T) {
	b := mustBind(t, "unix", filepath.Join(t.TempDir(), "s"), none())
	os.Remove(b.Path.Path)
	other := mustBind(t, "unix", b.Path.Path, none())
	if other.Path.Hidden == b.Path.Hidden {
		t.Errorf("both have the hidden link %s", b.Path.Hidden)
	}
	if _, err := b.Path.Restore(); err == nil || !strings.Contains(err.Error(), "another socket") {
		t.Errorf("%v", err)
	}
	b.Path.Remove()
	unix.Close(dialRaw(t, other))
}

func TestRestoreWithoutHiddenLink(t *testing.T) {
	b := mustBind(t, "unix", filepath.Join(t.TempDir(), "s"), none())
	os.Remove(b.Path.Hidden)
	if restored, err := b.Path.Restore(); restored || err != nil || !exists(b.Path.Hidden) {
		t.Errorf("the hidden link is not made again: %v, %v", restored, err)
	}
	os.Remove(b.Path.Hidden)
	os.Remove(b.Path.Path)
	if _, err := b.Path.Restore(); err == nil || !strings.Contains(err.Error(), "its hidden link") {
		t.Errorf("%v", err)
	}
	b.Path.Hidden, b.Path.NoHidden = "", "link: operation not permitted"
	if _, err := b.Path.Restore(); err == nil || !strings.HasSuffix(err.Error(), "it has no second hard link (link: operation not permitted)") {
		t.Errorf("%v", err)
	}
}

// A folder made for the first socket belongs to the second too: whoever goes last
// takes it along, and what somebody else has put there keeps it.
func TestRemoveSharedFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	first := mustBind(t, "unix", filepath.Join(dir, "a"), none())
	second := mustBind(t, "unix", filepath.Join(dir, "b"), none())
	first.close()
	if !exists(dir) {
		t.Fatal("the folder is gone with a socket in it")
	}
	os.WriteFile(filepath.Join(dir, "note"), nil, 0o600)
	second.close()
	if !exists(dir) {
		t.Fatal("the folder is gone with a file in it")
	}
	os.Remove(filepath.Join(dir, "note"))
	second.Path.Remove()
	if exists(dir) {
		t.Error("the folder is left")
	}
	// It may be given the same inode number at once; the time of birth tells them apart.
	for os.Mkdir(dir, 0o700); (Made{dir, second.Path.Dirs[0].FileID}).still(); os.Mkdir(dir, 0o700) {
		os.Remove(dir)
	}
	second.Path.Remove()
	if !exists(dir) {
		t.Error("somebody else's folder of the same name was removed")
	}
}
