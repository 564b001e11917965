package supervisor

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReloadAddsRemovesAndKeeps(t *testing.T) {
	f := newFixture(t, "web", onDemand, "gone", `
[service]
role = deaf
ready = "notify"
start = "boot"
stop_timeout = "100ms"
[socket.x]
listen = "unix://./gone.sock"
`)
	f.awaitState("gone", 1, "ready")
	a, err := ask("tcp", f.address("web", "http"))
	if err != nil {
		t.Fatal(err)
	}
	before := f.unit("web").Sockets[0]
	os.Remove(filepath.Join(f.dir, "gone.toml"))
	f.write("new", onDemand)
	f.write("web", onDemand+"\n[socket.more]\nlisten = [\"tcp://127.0.0.1:0\", \"unix://./more.sock\"]\n")
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := ask("tcp", f.address("new", "http")); err != nil {
		t.Fatal(err)
	}
	f.until("gone is gone", func() bool { _, ok := f.s.Unit("gone"); return !ok })
	if _, err := os.Lstat(filepath.Join(f.dir, "gone.sock")); err == nil {
		t.Error("its path is left")
	}
	f.until("web is replaced, since its descriptors are others", func() bool {
		runs := f.unit("web").Instances[0].Runs
		return len(runs) == 1 && runs[0].State == "ready" && runs[0].Pid != a.pid
	})
	after := f.unit("web")
	if after.Sockets[0].Inode != before.Inode || after.Sockets[0].Address != before.Address {
		t.Errorf("the socket was %+v and is %+v", before, after.Sockets[0])
	}
	if len(after.Sockets) != 3 {
		t.Fatalf("%d sockets", len(after.Sockets))
	}
	if _, err := ask("unix", filepath.Join(f.dir, "more.sock")); err != nil {
		t.Error(err)
	}
}

func TestReloadIsAllOrNothing(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	a, err := ask("tcp", f.address("web", "http"))
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, text := range map[string]string{
		"syntax": "[service",
		"bind":   strings.Replace(onDemand, "127.0.0.1:0", taken.Addr().String(), 1),
	} {
		f.write("another", onDemand)
		f.write("bad", text)
		f.write("web", "") // removing it would be seen
		f.write("web", strings.Replace(onDemand, `"notify"`, `"exec"`, 1))
		if err := f.s.Reload(t.Context()); err == nil {
			t.Fatalf("%s: reloaded", name)
		}
		if _, ok := f.s.Unit("another"); ok {
			t.Errorf("%s: the good half was taken", name)
		}
		if again, err := ask("tcp", f.address("web", "http")); err != nil || again.pid != a.pid {
			t.Errorf("%s: %+v, then %+v, %v", name, a, again, err)
		}
	}
	if got := f.unit("web"); got.Sockets[0].Queued != 0 || got.LastGen != 1 {
		t.Errorf("%+v", got)
	}
}

func TestReloadOfPolicyDisturbsNoProcess(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	a, err := ask("tcp", f.address("web", "http"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		f.write("web", strings.Replace(onDemand, "[socket", `stop_timeout = "`+string(rune('1'+i%9))+"s\"\n[socket", 1))
		if err := f.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if again, err := ask("tcp", f.address("web", "http")); err != nil || again != a {
		t.Fatalf("%+v, then %+v, %v", a, again, err)
	}
}

func TestUnitRemovedAndBackWhileItStops(t *testing.T) {
	deaf := `
[service]
role = deaf
ready = "notify"
start = "boot"
stop_timeout = "0s"
[socket.x]
listen = "tcp://127.0.0.1:0"
`
	f := newFixture(t, "web", onDemand, "slow", deaf)
	pid := f.awaitState("slow", 1, "ready").Pid
	inode := f.unit("slow").Sockets[0].Inode
	os.Remove(filepath.Join(f.dir, "slow.toml"))
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.write("slow", strings.Replace(deaf, "role = deaf", "role = serve", 1))
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	kill(t, pid)
	if _, err := ask("tcp", f.address("slow", "x")); err != nil {
		t.Fatal(err)
	}
	if got := f.unit("slow").Sockets[0].Inode; got != inode {
		t.Errorf("the socket was %d and is %d", inode, got)
	}
}

func TestRenamedUnitKeepsItsSocket(t *testing.T) {
	f := prepare(t)
	path := filepath.Join(f.dir, "s.sock")
	text := "[service]\nrole = serve\nready = \"notify\"\n[socket.s]\nlisten = \"unix://" + path + "\"\n"
	f.write("before", text)
	f.start()
	if _, err := ask("unix", path); err != nil {
		t.Fatal(err)
	}
	inode := f.unit("before").Sockets[0].Inode
	os.Remove(filepath.Join(f.dir, "before.toml"))
	f.write("bad", "[service")
	if err := f.s.Reload(t.Context()); err == nil {
		t.Fatal("reloaded")
	}
	os.Remove(filepath.Join(f.dir, "bad.toml"))
	f.write("after", text)
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.until("before is gone", func() bool { _, ok := f.s.Unit("before"); return !ok })
	if _, err := ask("unix", path); err != nil {
		t.Fatal(err)
	}
	if got := f.unit("after").Sockets[0].Inode; got != inode {
		t.Errorf("the socket was %d and is %d", inode, got)
	}
}

// A socket that a leaving unit still has goes to the next unit with its address, and
// stays when the one before has left, also if nobody supervised meanwhile.
func TestSocketOfALeavingUnitGoesOn(t *testing.T) {
	f := prepare(t)
	path := filepath.Join(f.dir, "s.sock")
	socket := "ready = \"notify\"\n[socket.s]\nlisten = \"unix://" + path + "\"\n"
	f.write("before", "[service]\nrole = deaf\nstart = \"boot\"\nstop_timeout = \"0s\"\n"+socket)
	f.start()
	f.awaitState("before", 1, "ready")
	st := f.unit("before")
	os.Remove(filepath.Join(f.dir, "before.toml"))
	f.write("other", "[service]\nrole = serve\n")
	for range 2 {
		if err := f.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.write("after", "[service]\nrole = serve\n"+socket)
	}
	if got := f.unit("after").Sockets[0].Inode; got != st.Sockets[0].Inode {
		t.Errorf("the socket was %d and is %d", st.Sockets[0].Inode, got)
	}
	f.crash()
	f.start()
	kill(t, st.Instances[0].Runs[0].Pid)
	f.until("before is gone", func() bool { _, ok := f.s.Unit("before"); return !ok })
	if _, err := ask("unix", path); err != nil {
		t.Fatal(err)
	}
}
