package supervisor

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/steer"
	"golang.org/x/sys/unix"
)

// A weightless group cannot set weights for a while.
type weightless struct {
	steer.Group
	fail atomic.Int32 // so often
	set  atomic.Pointer[[]int]
}

func (g *weightless) Set(weights []int) error {
	if g.fail.Add(-1) >= 0 {
		return fmt.Errorf("update map: %w", unix.ENOMEM)
	}
	w := slices.Clone(weights)
	g.set.Store(&w)
	return g.Group.Set(weights)
}

// Weights that the kernel did not take are set when it does: until then an instance that
// is down gets clients whom nobody serves.
func TestWeightsAreSetWhenTheyCanBe(t *testing.T) {
	f := newFixture(t, "web", fmt.Sprintf(siblings, "", 3, "restart = \"no\""))
	f.do("start", "web", Done)
	g := new(weightless)
	err := f.s.ask(t.Context(), func() error {
		u := f.s.units["web"]
		if len(u.groups) != 1 {
			return fmt.Errorf("%d groups", len(u.groups))
		}
		g.Group, u.groups[0].steer = u.groups[0].steer, g
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	g.fail.Store(2)
	kill(t, f.unit("web").Instances[1].Runs[0].Pid)
	f.awaitState("web", 2, "exited")
	waitFor(t, "the weights are set", func() bool {
		w := g.set.Load()
		return w != nil && len(*w) == 3 && (*w)[0] > 0 && (*w)[1] == 0 && (*w)[2] > 0
	})
}
