package supervisor

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"golang.org/x/sys/unix"
)

// A supervisor that dies is followed by another on the same keeper.
func TestCrashOfTheSupervisorDisturbsNoService(t *testing.T) {
	f := newFixture(t, "web", onDemand, "steady", `
[service]
role = print TEST_TEXT=one
start = "boot"
`)
	f.awaitState("steady", 1, "ready")
	a, err := ask("tcp", f.address("web", "http"))
	if err != nil {
		t.Fatal(err)
	}
	f.awaitState("web", 1, "ready")
	before := f.unit("web").Sockets[0]
	const rounds = 20
	for range rounds {
		f.crash()
		f.start()
		again, err := ask("tcp", before.Address)
		if err != nil || again != a {
			t.Fatalf("%+v, then %+v, %v", a, again, err)
		}
	}
	st := f.unit("web")
	if st.Sockets[0].Inode != before.Inode || st.Instances[0].Runs[0].Pid != a.pid || st.State != "ready" {
		t.Fatalf("%+v", st)
	}
	f.do("restart", "web", Done)
	if again, err := ask("tcp", before.Address); err != nil || again.gen != 2 {
		t.Fatalf("%+v, %v", again, err)
	}
}

func TestExitWhileNobodySupervises(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	address := f.address("web", "http")
	a, err := ask("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	f.awaitState("web", 1, "ready")
	f.crash()
	kill(t, a.pid)
	waitFor(t, "the exit to be recorded", func() bool {
		inv, err := f.keeper.Inventory()
		return err == nil && len(inv.Children) == 1 && !inv.Children[0].Running
	})
	f.start()
	e := f.awaitState("web", 1, "exited")
	if e.Exit.Signal != "SIGKILL" || e.Exit.Pid != a.pid {
		t.Fatalf("%+v", e.Exit)
	}
	if again, err := ask("tcp", address); err != nil || again.gen != 2 {
		t.Fatalf("%+v, %v", again, err)
	}
	exits := 0
	for _, e := range f.s.events.past() {
		if e.What == "exited" {
			exits++
		}
	}
	if exits != 1 {
		t.Errorf("%d exit records for one process", exits)
	}
}

func TestStopOutlivesACrash(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	f.do("stop", "web", Done)
	f.crash()
	f.start()
	if st := f.unit("web"); st.Up || st.State != "stopped" {
		t.Fatalf("%+v", st)
	}
}

func TestUnitRemovedWhileNobodySupervises(t *testing.T) {
	f := newFixture(t, "web", onDemand, "gone", `
[service]
role = print TEST_TEXT=hello
start = "boot"
[socket.x]
listen = "unix://./gone.sock"
`)
	f.awaitState("gone", 1, "ready")
	f.crash()
	os.Remove(f.dir + "/gone.toml")
	f.start()
	if st := f.unit("gone"); st.State != "ready" { // a crash is no reload
		t.Fatalf("%+v", st)
	}
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.until("gone is gone", func() bool { _, ok := f.s.Unit("gone"); return !ok })
	if _, err := os.Lstat(f.dir + "/gone.sock"); err == nil {
		t.Error("its path is left")
	}
	waitFor(t, "what it held to be closed", func() bool { // its log is read to the end first
		inv, err := f.keeper.Inventory()
		if err != nil {
			return false
		}
		for name := range inv.Descriptors {
			if strings.Contains(name, "gone") {
				return false
			}
		}
		return true
	})
}

// A run that was told to reload was not told to leave: a stop that was saved and not
// carried out is carried out by the next supervisor.
func TestStopAfterReloadOutlivesACrash(t *testing.T) {
	f := newFixture(t, "web", onDemand+"\n")
	f.write("web", strings.Replace(onDemand, "[service]", "[service]\nreload_signal = \"SIGCONT\"", 1))
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := ask("tcp", f.address("web", "http")); err != nil {
		t.Fatal(err)
	}
	f.awaitState("web", 1, "ready")
	f.do("reload", "web", Done)
	inv, err := f.keeper.Inventory()
	if err != nil || inv.Children[0].Last != syscall.SIGCONT {
		t.Fatalf("%+v, %v", inv.Children, err)
	}
	f.s.ask(t.Context(), func() error { f.s.keeper = deafKeeper{f.keeper}; return nil }) // it dies before the stop signal is sent
	if _, err := verbs["stop"](f.s, t.Context(), errand{unit: "web"}); err != nil {
		t.Fatal(err)
	}
	f.crash()
	f.start()
	f.until("web to be stopped", func() bool { st, _ := f.s.Unit("web"); return st.State == "stopped" })
	if end := f.unit("web").Instances[0].LastExit; end == nil || end.Signal != "" {
		t.Errorf("it was not told to leave, and had to be killed: %+v", end)
	}
}

// A deafKeeper sends no signals.
type deafKeeper struct{ *keeper.Local }

func (deafKeeper) Signal(keeper.ID, unix.Signal) error { return nil }

// What people want to know of an instance outlives a crash.
func TestFactsOutliveACrash(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	a, err := ask("tcp", f.address("web", "http"))
	if err != nil {
		t.Fatal(err)
	}
	f.awaitState("web", 1, "ready")
	kill(t, a.pid)
	f.awaitState("web", 1, "exited")
	if _, err := ask("tcp", f.address("web", "http")); err != nil {
		t.Fatal(err)
	}
	f.awaitState("web", 1, "ready")
	before := f.unit("web").Instances[0]
	f.crash()
	f.start()
	after := f.unit("web").Instances[0]
	if after.Starts != 2 || after.Starts != before.Starts || !after.Since.Equal(before.Since) || after.LastExit == nil ||
		after.LastExit.Signal != "SIGKILL" || !after.Runs[0].Started.Equal(before.Runs[0].Started) {
		t.Errorf("%+v, and was %+v", after, before)
	}
}
