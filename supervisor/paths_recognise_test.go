package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/sys"
	"golang.org/x/sys/unix"
)

// A supervisor has made a path again, and has died before that was saved: after the keeper
// held the new socket, or before. The next one knows its own, and what is nobody's.
func TestPathMadeAgainButNotSaved(t *testing.T) {
	for name, held := range map[string]bool{"held": true, "not held": false} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, "up", onPath)
			path := filepath.Join(f.dir, "d", "up.sock")
			inode := f.unit("up").Sockets[0].Inode
			f.crash()
			for _, name := range []string{path, filepath.Join(f.dir, "d", ".up.sock.sockd")} {
				if err := os.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
			bound, err := sys.Bind("unix", path, sys.Options{Mode: 0o640, UID: -1, GID: -1})
			if err != nil {
				t.Fatal(err)
			}
			if held {
				inode = inodeOf(bound.FD)
				err = f.keeper.Hold("listen/up/up", bound.FD)
			} else {
				err = unix.Close(bound.FD)
			}
			if err != nil {
				t.Fatal(err)
			}
			said := map[bool]string{true: "path recognised", false: "path made again"}[held]
			for range 2 { // it is saved
				f.start()
				f.healed(said, 1)
				if _, err := ask("unix", path); err != nil {
					t.Fatal(err)
				}
				if k := f.unit("up").Sockets[0]; k.Error != "" || held && k.Inode != inode {
					t.Errorf("its socket is %d, and %+v", inode, k)
				}
				f.crash()
			}
			f.start()
			f.stop()
			if _, err := os.Lstat(filepath.Dir(path)); err == nil {
				t.Error("its folder is left")
			}
			if n := strings.Count(f.log.String(), said); n != 1 {
				t.Errorf("it was said %d times: %s", n, said)
			}
		})
	}
}

// A new socket in the place of one that nobody can reach, which the keeper does not hold
// either: there is none then, and there is one as soon as it does.
func TestPathMadeAgainThatIsNotHeld(t *testing.T) {
	f := prepare(t, "up", onPath)
	k := &reluctant{Keeper: f.keeper}
	f.wrap = k
	f.start()
	k.full.Store(true)
	dir := filepath.Join(f.dir, "d")
	removeFolder(t, dir)
	f.until("status says it", func() bool { return strings.Contains(f.unit("up").Sockets[0].Error, "full") })
	k.full.Store(false)
	f.do("restart", "up", Done)
	f.until("it is back", func() bool { return f.unit("up").Sockets[0].Error == "" })
	if _, err := ask("unix", filepath.Join(dir, "up.sock")); err != nil {
		t.Fatal(err)
	}
}
