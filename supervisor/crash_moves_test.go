package supervisor

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A socket goes from unit to unit and from name to name while supervisors die: it is
// always the same one, and its path never leads nowhere.
func TestCrashWhileSocketsMove(t *testing.T) {
	if testing.Short() {
		t.Skip("many processes: without -short")
	}
	dir := t.TempDir()
	write := func(unit, tables string) {
		if err := os.WriteFile(filepath.Join(dir, unit+".toml"), []byte(tables), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	keeps, moves := table("keeps", "tcp://127.0.0.1:0"), table("on", "unix://./web.sock")
	write("a", keeps+moves)
	write("b", keeps)
	wanted := []string{"hold", "held", "release", "released", "save", "saved", "begin: sockets open", "reload: bound", "reload: held", "reload: handled", "reload: released"}
	tr := plantTree(t, dir, fmt.Sprint("TEST_HITS=", *points), "TEST_ONLY="+strings.Join(wanted, ","))
	tr.awaitControl()
	inodeOf := func(unit string) uint64 {
		st, err := tr.status(unit)
		if err != nil || len(st.Sockets) != 2 || st.Sockets[1].Error != "" {
			t.Fatalf("%s: %+v, %v", unit, st.Sockets, err)
		}
		return st.Sockets[1].Inode
	}
	inode := inodeOf("a")
	left := func(point string) bool { return deathsIn(filepath.Join(dir, "deaths"))[point] < *points }
	rounds := 0
	for names := []string{"a", "b"}; slices.ContainsFunc(wanted, left); rounds++ {
		if rounds > *points*200 {
			t.Fatalf("not everywhere died in %d rounds: %v", rounds, deathsIn(filepath.Join(dir, "deaths")))
		}
		if slices.Reverse(names); rounds%3 == 2 { // the same unit, and another name
			slices.Reverse(names)
		}
		write(names[1], keeps)
		write(names[0], keeps+table(fmt.Sprint("on", rounds), "unix://./web.sock"))
		tr.insist("reload", func(ctx context.Context) error { _, err := tr.client.Reload(ctx, patience); return err })
		if got := inodeOf(names[0]); got != inode {
			t.Fatalf("round %d: the socket was %d and is %d; died at %v", rounds, inode, got, deathsIn(filepath.Join(dir, "deaths")))
		}
		c, err := net.Dial("unix", filepath.Join(dir, "web.sock"))
		if err != nil {
			t.Fatalf("round %d: %v; died at %v", rounds, err, deathsIn(filepath.Join(dir, "deaths")))
		}
		c.Close()
	}
	tr.stop(nil)
	deaths := 0
	for _, n := range deathsIn(filepath.Join(dir, "deaths")) {
		deaths += n
	}
	t.Logf("promise N1: %d moves and renamings of a socket, %d supervisors died meanwhile: the same socket, and its path with it", rounds, deaths)
}
