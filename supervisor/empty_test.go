package supervisor

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"golang.org/x/sys/unix"
)

// looking says whether somebody looks at queues every millisecond.
func looking() bool {
	stacks := make([]byte, 1<<20)
	return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), ").seenEmpty(")
}

// N10: a queue is looked at only as long as somebody waits for it to become empty, and
// not until the stop timeout would have ended that.
func TestNobodyLooksAtQueuesForNothing(t *testing.T) {
	for name, c := range map[string]struct {
		level, more string
		change      func(f *fixture) error
	}{
		"a replacement": {"", "overlap = false", func(f *fixture) error {
			_, err := verbs["restart"](f.s, t.Context(), errand{unit: "web"})
			return err
		}},
		"an instance one too many": {"hash", "", func(f *fixture) error {
			_, err := f.s.scaleUnit(t.Context(), errand{unit: "web"}, 1)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.level == "hash" {
				needDeaf(t) // else it does not retire, and leaves at once
			}
			t.Setenv(levelVariable, c.level)
			f := newFixture(t, "web", fmt.Sprintf(siblings, "", 2, c.more+"\nstop_timeout = \"1h\""))
			f.do("start", "web", Done)
			address := f.address("web", "http")
			pids := []int{f.unit("web").Instances[0].Runs[0].Pid, f.unit("web").Instances[1].Runs[0].Pid}
			for _, pid := range pids {
				suspend(t, pid)
			}
			for _, k := range f.unit("web").Sockets {
				for queued := 0; queued == 0; queued = f.unit("web").Sockets[k.Instance-1].Queued {
					c, err := net.Dial("tcp", address)
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
				}
			}
			if err := c.change(f); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "somebody looks", looking)
			if _, err := verbs["pause"](f.s, t.Context(), errand{unit: "web"}); err != nil { // no replacement, and no start
				t.Fatal(err)
			}
			for _, pid := range pids {
				kill(t, pid)
			}
			waitFor(t, "nobody looks", func() bool { return !looking() })
		})
	}
}

// A saver counts how often a unit is saved, and has no process told to leave.
type saver struct {
	keeper.Keeper
	saves atomic.Int32
}

func (k *saver) Save(name string, state []byte) error {
	if name == "web" {
		k.saves.Add(1)
	}
	return k.Keeper.Save(name, state)
}

func (k *saver) Signal(id keeper.ID, sig unix.Signal) error {
	if sig == unix.SIGTERM {
		return nil
	}
	return k.Keeper.Signal(id, sig)
}

// Of many queues that are empty at once all are heard together, and their unit is saved once:
// of six hundred each had it saved, and nobody was answered for three seconds.
func TestManyQueuesAreEmpty(t *testing.T) {
	const instances = 50
	f := prepare(t, "web", fmt.Sprintf("[service]\nexec = [\"sleep\", \"1000\"]\nstart = \"boot\"\ninstances = %d\nstop_timeout = \"1h\"\n"+
		"[socket.dns]\nlisten = \"udp://127.0.0.1:0\"\nper_instance = true\n", instances))
	k := &saver{Keeper: f.keeper}
	f.wrap = k
	f.start()
	t.Cleanup(func() { f.s.Kill() })
	f.do("start", "web", Done)
	f.steered("web")        // else nobody looks
	waiting := func() int { // for the loop, to say that a queue is empty
		stacks := make([]byte, 1<<20)
		return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "[select]:\ngithub.com/sockd/sockd/supervisor.(*Supervisor).awaitEmpty.func1(")
	}
	err := f.s.ask(t.Context(), func() error {
		u := f.s.units["web"]
		ev, err := f.s.scale(u, 1)
		if err != nil {
			return err
		}
		f.s.handle(u, ev)
		waitFor(t, "all have looked", func() bool { return waiting() == instances-1 })
		k.saves.Store(0)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "all are heard", func() bool { return waiting() == 0 })
	f.s.ask(t.Context(), func() error { return nil })
	if n := k.saves.Load(); n != 1 {
		t.Errorf("%d queues were empty, and their unit was saved %d times", instances-1, n)
	}
}
