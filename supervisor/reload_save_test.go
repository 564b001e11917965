package supervisor

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// A narrow keeper saves no state that is larger than one unit's.
type narrow struct{ keeper.Keeper }

const narrowest = 64 << 10

func (k narrow) Save(name string, state []byte) error {
	if len(state) > narrowest {
		return fmt.Errorf("save %s: %d bytes are too many", name, len(state))
	}
	return k.Keeper.Save(name, state)
}

// No number of units is too large for a reload: it is not saved in one piece.
func TestReloadOfManyLargeUnits(t *testing.T) {
	f := prepare(t, "web", onDemand)
	f.wrap = narrow{f.keeper}
	f.start()
	const units = 8
	for i := range units {
		f.write(fmt.Sprintf("large%d", i), fmt.Sprintf("[service]\nexec = \"/bin/true\"\nstart = \"demand\"\nenvironment = { LARGE = %q }\n[socket.x]\nlisten = \"unix://./%d.sock\"\n",
			strings.Repeat("x", narrowest/2), i))
	}
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(f.s.Units()); n != 1+units {
		t.Errorf("%d units, want %d", n, 1+units)
	}
	inv, err := f.keeper.Inventory()
	if err != nil {
		t.Fatal(err)
	}
	for name := range inv.States {
		if strings.HasPrefix(name, reloadState) {
			t.Errorf("%s is left", name)
		}
	}
}
