package supervisor

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// deafInstances are flows of a unit whose processes read nothing any more.
func deafInstances(t *testing.T, f *fixture, unit string) (flows []*peer, pids []int) {
	t.Helper()
	flows = peers(t, f.address(unit, "quic"), 60)
	for i, in := range f.unit(unit).Instances {
		pids = append(pids, in.Runs[0].Pid)
		deafen(t, flowOf(t, flows, pids[i]))
	}
	return flows, pids
}

// fill has more than a share, in percent, of an instance's buffer wait.
func (f *fixture) fill(flows []*peer, pid, instance, percent int) (times int) {
	f.t.Helper()
	for k := f.seatOf(instance); k.Queued <= k.Backlog/100*percent; k = f.seatOf(instance) {
		say(f.t, flows, pid, 1)
		times++
	}
	return times
}

// answered counts the answers to so many datagrams of each flow that a process had, whoever gives them.
func answered(t *testing.T, flows []*peer, pid, times int) (heard int) {
	t.Helper()
	for _, p := range flows {
		for n := 0; p.pid == pid && n < times; n++ {
			p.SetDeadline(time.Now().Add(patience))
			if _, err := p.Read(make([]byte, 100)); err != nil {
				t.Fatalf("%d datagrams answered: %v", heard, err)
			}
			heard++
		}
	}
	return heard
}

// nothingLeft waits until no socket is held any more for what waits in it.
func (f *fixture) nothingLeft() {
	f.t.Helper()
	waitFor(f.t, "nothing is left", func() bool {
		inv, err := f.keeper.Inventory()
		return err == nil && !slices.ContainsFunc(slices.Collect(maps.Keys(inv.Descriptors)), func(name string) bool { return strings.HasPrefix(name, leftHeld) })
	})
}

// What a process that is scaled away has not read is dealt to all others, and one of them that
// has no room loses nothing.
func TestWhatIsLeftWaitsForRoomWithEach(t *testing.T) {
	needRaw(t)
	for _, level := range []string{"", "hash", "off"} {
		t.Run(level, func(t *testing.T) {
			t.Setenv(levelVariable, level)
			f := newFixture(t, "web", fmt.Sprintf(stickyUnit, 3, ""))
			t.Cleanup(func() { f.s.Kill() })
			f.do("start", "web", Done)
			flows := peers(t, f.address("web", "quic"), 60)
			var pids []int
			for i, in := range f.unit("web").Instances {
				pids = append(pids, in.Runs[0].Pid)
				if p := flowOf(t, flows, pids[i]); i > 0 {
					deafen(t, p)
				}
			}
			second := f.fill(flows, pids[1], 2, 85)
			third := f.fill(flows, pids[2], 3, 70)
			go f.s.scaleUnit(t.Context(), errand{unit: "web"}, 2)
			f.until("it drains", func() bool { return slices.Contains(f.draining(), pids[2]) })
			kill(t, pids[2])
			f.until("it has left", func() bool { return len(f.unit("web").Instances) == 2 })
			kill(t, pids[1]) // the next one reads
			heard := answered(t, flows, pids[1], second) + answered(t, flows, pids[2], third)
			f.nothingLeft()
			t.Logf("promise N3: %d datagrams that two of three processes had not read, one of them scaled away, steering %s: each answered", heard, level)
		})
	}
}

// They come to whoever has the address then: the unit may have another name.
func TestWhatIsLeftGoesToARenamedUnit(t *testing.T) {
	needRaw(t)
	f := newFixture(t, "web", fmt.Sprintf(stickyUnit, 2, ""))
	t.Cleanup(func() { f.s.Kill() })
	f.do("start", "web", Done)
	flows, pids := deafInstances(t, f, "web")
	first, second := f.fill(flows, pids[0], 1, 60), f.fill(flows, pids[1], 2, 60)
	go f.s.scaleUnit(t.Context(), errand{unit: "web"}, 1)
	f.until("it drains", func() bool { return slices.Contains(f.draining(), pids[1]) })
	kill(t, pids[1])
	f.until("it has left", func() bool { return len(f.unit("web").Instances) == 1 })
	os.Remove(filepath.Join(f.dir, "web.toml"))
	f.write("www", fmt.Sprintf(stickyUnit, 1, ""))
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	kill(t, pids[0])
	f.until("it is gone", func() bool { _, ok := f.s.Unit("web"); return !ok })
	heard := answered(t, flows, pids[0], first) + answered(t, flows, pids[1], second)
	f.nothingLeft()
	t.Logf("promise N3: %d datagrams that nobody had read when their unit was renamed: each answered", heard)
}

// A reload that takes flows out of a unit's file closes a socket of each instance: what
// its process has not read when it leaves is read by the next one.
func TestReloadWithoutFlowsLosesNoDatagram(t *testing.T) {
	needRaw(t)
	for _, crash := range []bool{false, true} {
		f, address := stickyFixture(t, 1)
		first := peers(t, address, 1)[0]
		go f.s.restartUnit(t.Context(), errand{unit: "web", wait: true})
		f.until("it drains", func() bool { return slices.Contains(f.draining(), first.pid) })
		fmt.Fprint(first, "leave")
		f.until("it has left", func() bool { return len(f.unit("web").Instances[0].Runs) == 1 })
		flows := peers(t, address, 20)
		old := flows[0].pid
		deafen(t, flows[0])
		sent := say(t, flows, old, 5)
		f.write("web", strings.Replace(fmt.Sprintf(stickyUnit, 1, ""), `flows = "sticky"`, "", 1))
		if err := f.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.until("it drains", func() bool { return slices.Contains(f.draining(), old) })
		if crash {
			f.crash()
			f.start()
		}
		kill(t, old)
		if heard := answered(t, flows, old, 5); heard != sent {
			t.Errorf("%d answered, %d sent", heard, sent)
		}
		f.nothingLeft()
		if n := len(f.unit("web").Sockets); n != 1 {
			t.Errorf("%d sockets", n)
		}
	}
}
