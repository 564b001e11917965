package supervisor

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A Unix listener that was shut down is bound anew. The watch of the old one goes with
// it, whoever finds out first; a caller of the new one is heard all the same.
func TestNewListenerIsWatched(t *testing.T) {
	f := prepare(t)
	path := filepath.Join(f.dir, "s.sock")
	f.write("web", "[service]\nrole = serve\nready = \"notify\"\n[socket.http]\nlisten = \"unix://"+path+"\"\n")
	f.start()
	err := f.s.ask(t.Context(), func() error {
		u := f.s.units["web"]
		k := u.sockets[0]
		f.s.watch.Disarm(k.fd) // as if what it tells now had been read already
		if err := unix.Shutdown(k.fd, unix.SHUT_RDWR); err != nil {
			return err
		}
		before := k.key
		f.s.readySockets(u, u.sockets, 1, 0) // not through called: that comes later, or never
		if k.key == before || len(f.s.targets) != 1 {
			t.Errorf("watch key %d, before %d, of %d: what was heard of the old one would count", k.key, before, len(f.s.targets))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask("unix", path); err != nil {
		t.Fatal(err)
	}
}
