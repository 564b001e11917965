package supervisor

import (
	"testing"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// A run of a unit that nobody knows anything of is ended: it would be there beside the
// first that a unit of that name starts.
func TestRunOfAnUnknownUnitIsEnded(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	f.crash()
	id := keeper.ID{Unit: "ghost", Instance: 1, Gen: 7}
	if err := f.keeper.Spawn(id, keeper.Process{Argv: []string{"/bin/sleep", "1000000"}, Dir: "/", Output: -1}); err != nil {
		t.Fatal(err)
	}
	f.start()
	waitFor(t, "it has ended, and that was heard", func() bool {
		inv, err := f.keeper.Inventory()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range inv.Children {
			if c.ID == id {
				return false
			}
		}
		return true
	})
}
