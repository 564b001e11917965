package supervisor

import (
	"strings"
	"testing"
)

// N1: a saved state that contradicts itself is set aside, but not the unit's sockets:
// they are open, and clients and processes have them.
func TestSocketsStayThoughTheStateIsSetAside(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	before, err := ask("tcp", f.address("web", "http"))
	if err != nil {
		t.Fatal(err)
	}
	socket := f.unit("web").Sockets[0]
	f.crash()
	inv, err := f.keeper.Inventory()
	if err != nil {
		t.Fatal(err)
	}
	sane := string(inv.States["web"])
	broken := strings.Replace(sane, `"LastGen":1`, `"LastGen":0`, 1)
	if broken == sane {
		t.Fatalf("no generation in %s", sane)
	}
	f.keeper.Save("web", []byte(broken))
	f.start()
	if !strings.Contains(f.log.String(), "saved state set aside") {
		t.Error("nothing is said of the state")
	}
	if k := f.unit("web").Sockets[0]; k.Inode != socket.Inode || k.Address != socket.Address {
		t.Errorf("the socket was %d at %s, and is %d at %s", socket.Inode, socket.Address, k.Inode, k.Address)
	}
	if now, err := ask("tcp", socket.Address); err != nil || now != before {
		t.Errorf("%+v, then %+v, %v", before, now, err)
	}
}
