package supervisor

import (
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// A lastHold ends the supervisor that has so many sockets held for what waits in them, before
// it does anything more.
type lastHold struct {
	keeper.Keeper
	until int // so many are held; 0: never
	end   func()
}

func (k *lastHold) Hold(name string, fd int) error {
	err := k.Keeper.Hold(name, fd)
	if strings.HasPrefix(name, leftHeld) {
		if k.until--; k.until == 0 {
			k.end()
		}
	}
	return err
}

// A supervisor that dies when what is left is held, and the sockets it is left in are too, is
// followed by one that has all of them held again, under the same names.
func TestWhatIsLeftIsHeldTwice(t *testing.T) {
	needRaw(t)
	f := prepare(t, "web", fmt.Sprintf(stickyUnit, 3, ""))
	k := &lastHold{Keeper: f.keeper, until: 2}
	f.wrap = k
	f.start()
	t.Cleanup(func() { f.s.Kill() })
	f.do("start", "web", Done)
	flows, pids := deafInstances(t, f, "web")
	first := f.fill(flows, pids[0], 1, 60)
	second, third := say(t, flows, pids[1], 3), say(t, flows, pids[2], 5)
	dead, s := make(chan struct{}), f.s
	k.end = func() {
		s.crashed = errAbrupt
		close(dead)
		runtime.Goexit()
	}
	go s.scaleUnit(t.Context(), errand{unit: "web"}, 1)
	f.until("both drain", func() bool {
		all := f.draining()
		return slices.Contains(all, pids[1]) && slices.Contains(all, pids[2])
	})
	kill(t, pids[1])
	kill(t, pids[2])
	<-dead
	<-s.quit
	f.ended = nil
	f.start()
	kill(t, pids[0]) // the next one reads
	answered(t, flows, pids[0], first)
	if n := answered(t, flows, pids[1], 3) + answered(t, flows, pids[2], 5); n != second+third {
		t.Errorf("%d answered, %d sent", n, second+third)
	}
	f.nothingLeft()
	t.Logf("promise N3: %d datagrams of two instances that are scaled away, and the supervisor dies with their sockets held twice: each answered", second+third)
}

// Of many that are left one is tried again for all, later and later; and what is closed at the
// end of sockd, with them and with their siblings, is said.
func TestWhatIsLeftOfMany(t *testing.T) {
	needRaw(t)
	const instances, stay = 6, 2
	f := newFixture(t, "web", fmt.Sprintf("[service]\nexec = [\"/bin/sleep\", \"1000\"]\nstart = \"boot\"\ninstances = %d\n"+
		"[socket.dns]\nlisten = \"udp://127.0.0.1:0\"\nper_instance = true\n", instances))
	f.do("start", "web", Done)
	for f.leastQueued() < 60 {
		c, err := net.Dial("udp", f.address("web", "dns"))
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			fmt.Fprint(c, "?")
		}
		c.Close()
	}
	if out, err := f.s.scaleUnit(t.Context(), errand{unit: "web", wait: true}, stay); err != nil || out.Outcome != Done {
		t.Fatalf("%+v, %v", out, err)
	}
	waitFor(t, "one tries again", func() bool {
		all := make([]byte, 1<<20)
		return strings.Count(string(all[:runtime.Stack(all, true)]), ").tryAgain.func1(") == 1
	})
	left := 0
	f.s.ask(t.Context(), func() error { left = len(f.s.left); return nil })
	if left != instances-stay {
		t.Errorf("%d are left, want %d", left, instances-stay)
	}
	f.stop()
	for i := range instances {
		if want := fmt.Sprintf(`msg="datagrams closed" unit=web instance=%d `, i+1); strings.Count(f.log.String(), want) != 1 {
			t.Errorf("not said once: %s", want)
		}
	}
}

// leastQueued is how full the emptiest socket of web is, in percent.
func (f *fixture) leastQueued() int {
	least := 100
	for _, k := range f.unit("web").Sockets {
		least = min(least, 100*k.Queued/k.Backlog)
	}
	return least
}

func TestWhoMayReadWhatIsLeft(t *testing.T) {
	lives := &run{id: keeper.ID{Unit: "web", Instance: 1, Gen: 7}}
	s := &Supervisor{units: map[string]*unit{"web": {runs: map[uint64]*run{7: lives, 9: {id: keeper.ID{Unit: "web", Instance: 2, Gen: 9}, exited: true}}}}}
	for _, c := range []struct {
		name string
		left left
		want bool
	}{
		{"its instance's process", left{unit: "web", instance: 1, upto: 7}, true},
		{"one that was started later", left{unit: "web", instance: 1, upto: 6}, false},
		{"one that has ended", left{unit: "web", instance: 2, upto: 9}, false},
		{"one of many that share it", left{unit: "web", upto: 8}, true},
		{"another unit's", left{unit: "www", upto: 8}, false},
	} {
		if got := s.mayRead(c.left); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
