package supervisor

import (
	"fmt"
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
