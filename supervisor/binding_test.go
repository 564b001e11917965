package supervisor

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"golang.org/x/sys/unix"
)

// A reluctant keeper says, while it is full, that it could not hold what it was given.
type reluctant struct {
	keeper.Keeper
	full atomic.Bool
}

func (k *reluctant) Settle() error {
	if k.full.Load() {
		return errors.New("hold listen: full")
	}
	return k.Keeper.Settle()
}

// A refusing keeper says at once, while it is full, that it does not hold sockets.
type refusing struct {
	keeper.Keeper
	full atomic.Bool
}

func (k *refusing) Hold(name string, fd int) error {
	if k.full.Load() && strings.HasPrefix(name, "listen/") {
		return errors.New("hold " + name + ": full")
	}
	return k.Keeper.Hold(name, fd)
}

// A supervisor that goes on where another left off, and cannot have a socket again that
// is gone, says so and keeps all others.
func TestSocketThatCannotBeHeldAfterACrash(t *testing.T) {
	f := prepare(t, "web", "[service]\nrole = serve\nready = \"notify\"\n[socket.http]\nlisten = \"unix://./web.sock\"\n",
		"a", "[socket.lost]\nlisten = \"unix://./a.sock\"\n")
	k := &refusing{Keeper: f.keeper}
	f.wrap = k
	f.start()
	path := f.dir + "/web.sock"
	before, err := ask("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f.crash()
	f.keeper.Release("listen/a/lost")
	k.full.Store(true)
	f.start()
	if now, err := ask("unix", path); err != nil || now != before {
		t.Errorf("%+v, then %+v, %v", before, now, err)
	}
	if !strings.Contains(f.log.String(), "listen/a/lost: full") {
		t.Error("nothing is said of the socket that is gone")
	}
}

// A reload that cannot be held is taken back whole, also where one unit's sockets were
// to go on in another.
func TestReloadThatCannotBeHeldChangesNothing(t *testing.T) {
	f := prepare(t, "web", "[service]\nrole = serve\nready = \"notify\"\n[socket.http]\nlisten = \"unix://./web.sock\"\n")
	k := &reluctant{Keeper: f.keeper}
	f.wrap = k
	f.start()
	path := f.dir + "/web.sock"
	a, err := ask("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	before := f.unit("web").Sockets[0].Inode
	k.full.Store(true)
	text, err := os.ReadFile(f.dir + "/web.toml")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, f.dir+"/renamed.toml", string(text)+"[socket.more]\nlisten = \"unix://./more.sock\"\n")
	if err := os.Remove(f.dir + "/web.toml"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "not held") {
			t.Fatalf("%v", err)
		}
		if _, ok := f.s.Unit("renamed"); ok || f.unit("web").Sockets[0].Inode != before {
			t.Fatalf("%+v", f.unit("web"))
		}
		if b, err := ask("unix", path); err != nil || b != a {
			t.Fatalf("%+v, then %+v, %v", a, b, err)
		}
		if _, err := os.Lstat(f.dir + "/more.sock"); err == nil {
			t.Fatal("a path is left")
		}
		f.crash() // what was saved is as it was too
		f.start()
	}
	inv, err := f.keeper.Inventory()
	if err != nil {
		t.Fatal(err)
	}
	for name := range inv.Descriptors {
		if strings.Contains(name, "renamed") {
			t.Errorf("%s is held", name)
		}
	}
	k.full.Store(false)
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.until("web is gone", func() bool { _, ok := f.s.Unit("web"); return !ok })
	if _, err := ask("unix", path); err != nil || f.unit("renamed").Sockets[0].Inode != before {
		t.Fatalf("%+v, %v", f.unit("renamed"), err)
	}
	f.stop()
	if _, err := os.Lstat(path); err == nil {
		t.Error("its path is left")
	}
}

// A listener that is bound anew and cannot be held is bound again when there is room.
func TestNewListenerThatCannotBeHeld(t *testing.T) {
	f := prepare(t, "web", "[service]\nrole = serve\nready = \"notify\"\n[socket.http]\nlisten = \"unix://./web.sock\"\n")
	k := &reluctant{Keeper: f.keeper}
	f.wrap = k
	f.start()
	err := f.s.ask(t.Context(), func() error {
		u := f.s.units["web"]
		if err := unix.Shutdown(u.sockets[0].fd, unix.SHUT_RDWR); err != nil {
			return err
		}
		k.full.Store(true)
		if f.s.listenAgain(u, u.sockets[0]) || !strings.Contains(f.log.String(), "not listening") {
			t.Error("it listens, and nobody holds it")
		}
		if inv, err := f.keeper.Inventory(); err != nil || inv.Descriptors["listen/web/http"] != 0 {
			t.Errorf("held is %v, %v", inv.Descriptors, err)
		}
		k.full.Store(false)
		f.s.readySockets(u, u.sockets, 1, 0)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask("unix", f.dir+"/web.sock"); err != nil {
		t.Fatal(err)
	}
}
