package keeper_test

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/fake"
	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// A theatre is a keeper and the programs that stories are made of.
type theatre struct {
	keeper.Keeper
	program func(name string) keeper.Process
}

// Programs: "exit N", "wait" (until SIGTERM, then exit 0), "missing".
var theatres = map[string]func(t *testing.T) theatre{
	"local":           func(t *testing.T) theatre { return realOne(t, keeper.Options{}) },
	"local no cgroup": func(t *testing.T) theatre { return realOne(t, keeper.Options{NoCgroup: true}) },
	"remote":          remoteOne,
	"fake":            played,
}

func remoteOne(t *testing.T) theatre {
	l := realOne(t, keeper.Options{})
	return theatre{keeper.Served(t, l.Keeper.(*keeper.Local)), l.program}
}

func realOne(t *testing.T, o keeper.Options) theatre {
	return theatre{newLocal(t, o), func(name string) keeper.Process {
		switch {
		case name == "wait":
			return shell(`trap 'exit 0' TERM; echo ready >&3; while :; do sleep 1000 & wait; done`)
		case strings.HasPrefix(name, "exit "):
			return shell(name)
		}
		return process("./missing")
	}}
}

func newLocal(t testing.TB, o keeper.Options) *keeper.Local {
	t.Helper()
	l, err := keeper.NewLocal(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func process(argv ...string) keeper.Process {
	return keeper.Process{Argv: argv, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/", Output: -1, Umask: -1}
}

func shell(script string) keeper.Process { return process("/bin/sh", "-c", script) }

func played(t *testing.T) theatre {
	k := fake.NewKeeper().Obedient()
	k.OnSpawn = func(id keeper.ID, p keeper.Process) {
		var code int
		switch _, err := fmt.Sscanf(p.Argv[0], "exit %d", &code); {
		case p.Argv[0] == "missing":
			k.Fail(id, "exec", "./missing: no such file or directory")
		case err == nil:
			k.Exec(id)
			k.Exit(id, code)
		default:
			k.Exec(id)
		}
	}
	t.Cleanup(func() { k.Close() })
	return theatre{k, func(name string) keeper.Process { return process(name) }}
}

const patience = 60 * time.Second

func next(t testing.TB, k keeper.Keeper) keeper.Event {
	t.Helper()
	select {
	case ev := <-k.Events():
		return ev
	case <-time.After(patience):
		t.Fatal("no news")
		panic("unreachable")
	}
}

func id(unit string, gen uint64) keeper.ID { return keeper.ID{Unit: unit, Instance: 1, Gen: gen} }

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func children(t testing.TB, k keeper.Keeper) []keeper.Child {
	t.Helper()
	inv, err := k.Inventory()
	ok(t, err)
	return inv.Children
}

// A pair is a pipe whose one end can be held and whose other end tells when that
// has been closed.
func pair(t testing.TB) (held int, other *os.File) {
	t.Helper()
	var p [2]int
	ok(t, unix.Pipe2(p[:], unix.O_CLOEXEC))
	unix.SetNonblock(p[0], true)
	r := os.NewFile(uintptr(p[0]), "pipe")
	t.Cleanup(func() { r.Close() })
	return p[1], r
}

// closed waits until nobody has the other end any more.
func closed(t testing.TB, r *os.File) {
	t.Helper()
	r.SetReadDeadline(time.Now().Add(patience))
	for b := make([]byte, 64); ; {
		if _, err := r.Read(b); err != nil {
			if os.IsTimeout(err) {
				t.Fatal("still open")
			}
			return
		}
	}
}

func isOpen(r *os.File) bool {
	r.SetReadDeadline(time.Now().Add(-time.Second))
	_, err := r.Read(make([]byte, 1))
	return os.IsTimeout(err)
}

var stories = map[string]func(t *testing.T, k theatre){
	"a run from start to acknowledgement": func(t *testing.T, k theatre) {
		ok(t, k.Spawn(id("web", 1), k.program("exit 3")))
		first := next(t, k)
		if first.Kind != keeper.Execed || first.ID != id("web", 1) || first.Pid <= 1 {
			t.Fatalf("%+v", first)
		}
		second := next(t, k)
		want := keeper.Event{ID: id("web", 1), Kind: keeper.Exited, Pid: first.Pid, Code: 3}
		if second != want {
			t.Fatalf("%+v, want %+v", second, want)
		}
		want1 := []keeper.Child{{ID: id("web", 1), Pid: first.Pid, Pending: []keeper.Event{first, second}}}
		if got := children(t, k); !reflect.DeepEqual(got, want1) {
			t.Fatalf("%+v, want %+v", got, want1)
		}
		ok(t, k.Acknowledge(first))
		if got := children(t, k); len(got) != 1 || len(got[0].Pending) != 1 || got[0].Pending[0] != second {
			t.Fatalf("%+v", got)
		}
		ok(t, k.Acknowledge(second))
		ok(t, k.Acknowledge(second))
		if got := children(t, k); len(got) != 0 {
			t.Fatalf("%+v", got)
		}
		ok(t, k.Spawn(id("web", 1), k.program("exit 0"))) // the name is free again
		next(t, k)
		next(t, k)
	},
	"a start that fails": func(t *testing.T, k theatre) {
		ok(t, k.Spawn(id("web", 1), k.program("missing")))
		ev := next(t, k)
		if want := (keeper.Event{ID: id("web", 1), Kind: keeper.SpawnFailed, Stage: "exec", Err: "./missing: no such file or directory"}); ev != want {
			t.Fatalf("%+v", ev)
		}
		if c := children(t, k); len(c) != 1 || c[0].Running || len(c[0].Pending) != 1 {
			t.Fatalf("%+v", c)
		}
		ok(t, k.Acknowledge(ev))
		if c := children(t, k); len(c) != 0 {
			t.Fatalf("%+v", c)
		}
	},
	"errors mean that nothing was started": func(t *testing.T, k theatre) {
		ok(t, k.Spawn(id("web", 1), k.program("wait")))
		p := k.program("wait")
		if k.Spawn(id("web", 1), p) == nil {
			t.Error("a listed run was started again")
		}
		p.Sockets = []string{"listen/web/http"}
		if err := k.Spawn(id("web", 2), p); err == nil || err.Error() != "web@1.2: no descriptor is held as listen/web/http" {
			t.Error(err)
		}
		if k.Spawn(id("web", 3), keeper.Process{Output: -1}) == nil {
			t.Error("started nothing at all")
		}
		if c := children(t, k); len(c) != 1 {
			t.Errorf("%+v", c)
		}
		next(t, k)
		ok(t, k.Signal(id("web", 1), unix.SIGKILL))
		if ev := next(t, k); ev.Signal != int(unix.SIGKILL) || ev.Code != 0 {
			t.Errorf("%+v", ev)
		}
	},
	"the last signal is remembered": func(t *testing.T, k theatre) {
		p := k.program("wait")
		w, r := pair(t)
		ok(t, k.Hold("ready", w))
		p.Sockets = []string{"ready"}
		ok(t, k.Spawn(id("web", 7), p))
		execed := next(t, k)
		if _, isFake := k.Keeper.(*fake.Keeper); !isFake {
			r.Read(make([]byte, 16)) // the trap is set
		}
		if c := children(t, k); !c[0].Running || c[0].Last != 0 || c[0].Pid != execed.Pid {
			t.Errorf("%+v", c)
		}
		ok(t, k.Signal(id("web", 7), unix.SIGTERM))
		ev := next(t, k)
		if ev.Kind != keeper.Exited || ev.Code != 0 || ev.Signal != 0 {
			t.Errorf("%+v", ev)
		}
		ok(t, k.Signal(id("web", 7), unix.SIGKILL)) // too late, and no error
		if c := children(t, k); c[0].Running || c[0].Last != unix.SIGTERM {
			t.Errorf("%+v", c)
		}
	},
	"signals to nobody": func(t *testing.T, k theatre) {
		ok(t, k.Signal(id("nobody", 1), unix.SIGTERM))
		if k.SetMain(id("nobody", 1), os.Getpid()) == nil {
			t.Error("made us a main process")
		}
	},
	"a main process must be one of the run's": func(t *testing.T, k theatre) {
		ok(t, k.Spawn(id("web", 1), k.program("wait")))
		next(t, k)
		for _, pid := range []int{-1, 0, 1} {
			if k.SetMain(id("web", 1), pid) == nil {
				t.Errorf("%d accepted", pid)
			}
		}
		ok(t, k.Signal(id("web", 1), unix.SIGKILL))
		next(t, k)
	},
	"hold, replace, release": func(t *testing.T, k theatre) {
		a, aEnd := pair(t)
		b, bEnd := pair(t)
		ok(t, k.Hold("listen/web/http", a))
		ok(t, k.Hold("listen/web/http", a)) // the same again changes nothing
		ok(t, k.Settle())
		if !isOpen(aEnd) {
			t.Fatal("closed by being held twice")
		}
		ok(t, k.Hold("listen/web/http", b))
		closed(t, aEnd)
		inv, err := k.Inventory()
		ok(t, err)
		if !reflect.DeepEqual(inv.Descriptors, map[string]int{"listen/web/http": b}) {
			t.Errorf("%v", inv.Descriptors)
		}
		ok(t, k.Release("listen/web/http"))
		ok(t, k.Release("listen/web/http"))
		closed(t, bEnd)
		if k.Hold("x", 1<<19) == nil {
			t.Error("holds what is not open")
		}
	},
	"states are kept, replaced and forgotten": func(t *testing.T, k theatre) {
		state := []byte("one")
		ok(t, k.Save("web", state))
		state[0] = 'X'
		ok(t, k.Save("api", []byte{}))
		inv, _ := k.Inventory()
		if string(inv.States["web"]) != "one" || inv.States["api"] == nil {
			t.Errorf("%q", inv.States)
		}
		ok(t, k.Save("web", []byte("two")))
		ok(t, k.Save("api", nil))
		inv, _ = k.Inventory()
		if len(inv.States) != 1 || string(inv.States["web"]) != "two" {
			t.Errorf("%q", inv.States)
		}
	},
	"news keeps its order within a run, and nobody waits for the reader": func(t *testing.T, k theatre) {
		const n = 50
		for gen := range uint64(n) {
			ok(t, k.Spawn(id("web", gen), k.program("exit 0")))
		}
		seen := map[keeper.ID]keeper.Kind{}
		for range 2 * n {
			ev := next(t, k)
			if want := map[keeper.Kind]keeper.Kind{"": keeper.Execed, keeper.Execed: keeper.Exited}[seen[ev.ID]]; ev.Kind != want {
				t.Fatalf("%+v after %q", ev, seen[ev.ID])
			}
			seen[ev.ID] = ev.Kind
		}
		list := children(t, k)
		for i, c := range list {
			if c.ID != id("web", uint64(i)) {
				t.Fatalf("out of order: %v", c.ID)
			}
		}
		if len(list) != n {
			t.Errorf("%d listed", len(list))
		}
	},
	"closing lets go of everything": func(t *testing.T, k theatre) {
		a, aEnd := pair(t)
		ok(t, k.Hold("x", a))
		ok(t, k.Close())
		ok(t, k.Close())
		closed(t, aEnd)
		b, _ := pair(t)
		defer unix.Close(b)
		_, err := k.Inventory()
		if err == nil || k.Hold("y", b) == nil || k.Save("u", nil) == nil || k.Settle() == nil || k.Spawn(id("web", 1), k.program("exit 0")) == nil {
			t.Error("a closed keeper goes on")
		}
	},
}

func TestContract(t *testing.T) {
	for theatre, open := range theatres {
		for name, story := range stories {
			if theatre == "remote" && name == "closing lets go of everything" {
				continue // the keeper's process goes on: TestSupervisorsComeAndGo
			}
			t.Run(theatre+"/"+name, func(t *testing.T) { story(t, open(t)) })
		}
	}
}
