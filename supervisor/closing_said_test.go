package supervisor

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Who waits in a socket that is removed with its unit, and that no process has, is closed
// with it, and that is said; who waits in one that goes on in another unit is not, and nothing is.
func TestWhoIsClosedIsSaid(t *testing.T) {
	const waits = "[socket.http]\nlisten = \"%s\"\n[socket.dns]\nlisten = \"udp://127.0.0.1:0\"\n"
	f := newFixture(t, "web", fmt.Sprintf(waits, "tcp://127.0.0.1:0"))
	address := f.address("web", "http")
	for _, to := range [][2]string{{"tcp", address}, {"udp", f.address("web", "dns")}} {
		c, err := net.Dial(to[0], to[1])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "?")
	}
	waitFor(t, "they wait", func() bool { return f.unit("web").Sockets[0].Queued > 0 && f.unit("web").Sockets[1].Queued > 0 })
	reload := func() {
		t.Helper()
		if err := f.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	rename := func(from, to string) {
		t.Helper()
		os.Remove(filepath.Join(f.dir, from+".toml"))
		f.write(to, fmt.Sprintf(waits, "tcp://"+address))
		reload()
		f.until(from+" is gone", func() bool { _, ok := f.s.Unit(from); return !ok })
	}
	rename("web", "www")
	if strings.Contains(f.log.String(), "queue closed") {
		t.Error("a queue that goes on was said to be closed")
	}
	os.Remove(filepath.Join(f.dir, "www.toml"))
	reload()
	f.until("www is gone", func() bool { _, ok := f.s.Unit("www"); return !ok })
	for _, want := range []string{`msg="queue closed" unit=www`, `msg="datagrams closed" unit=www`} {
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("not said: %s", want)
		}
	}
}
