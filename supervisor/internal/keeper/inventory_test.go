package keeper_test

import (
	"fmt"
	"maps"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// An inventory of a thousand units comes whole, whether in batches or, for a supervisor
// that does not ask for those, piece by piece.
func TestInventoryInBatches(t *testing.T) {
	l := newLocal(t, keeper.Options{NoCgroup: true})
	const units, runs = 1000, 3
	states := map[string]int{"large": 100 << 10} // more than fits into a batch
	for i := range units {
		states[fmt.Sprintf("u%d", i)] = i
	}
	for name, size := range states {
		ok(t, l.Save(name, make([]byte, size)))
	}
	for i := range runs {
		ok(t, l.Spawn(id("web", uint64(i+1)), shell("exit 3")))
	}
	for ended := 0; ended < runs; {
		if next(t, l).Kind == keeper.Exited {
			ended++
		}
	}
	inv, err := keeper.Served(t, l).Inventory()
	ok(t, err)
	got := map[string]int{}
	for name, state := range inv.States {
		got[name] = len(state)
	}
	if !maps.Equal(got, states) || len(inv.Children) != runs || len(inv.Children[0].Pending) != 2 {
		t.Errorf("%d states, %d children", len(got), len(inv.Children))
	}
	single, all := keeper.InventoryMessages(t, l, false)
	if single != all || all != len(states)+runs {
		t.Errorf("of %d pieces, %d came alone", all, single)
	}
	single, all = keeper.InventoryMessages(t, l, true)
	if single != 1 || all > 20 {
		t.Errorf("in batches, there were %d messages, %d of them of one piece", all, single)
	}
	for _, c := range inv.Children {
		for _, ev := range c.Pending {
			ok(t, l.Acknowledge(ev))
		}
	}
}

// BenchmarkInventory: of a thousand idle units.
func BenchmarkInventory(b *testing.B) {
	l := newLocal(b, keeper.Options{NoCgroup: true})
	for i := range 1000 {
		ok(b, l.Save(fmt.Sprintf("u%d", i), make([]byte, 500)))
		ok(b, l.Save(fmt.Sprintf("conf/u%d", i), make([]byte, 600)))
	}
	r := keeper.Served(b, l)
	for b.Loop() {
		_, err := r.Inventory()
		ok(b, err)
	}
}
