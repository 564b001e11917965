package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// A dying keeper hears of no more saving once it was told to forget one thing of a
// unit: so it is left where a supervisor dies at that moment.
type dying struct {
	keeper.Keeper
	unit string

	mu   sync.Mutex
	dead bool
}

func (k *dying) Save(name string, state []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead {
		return nil
	}
	k.dead = state == nil && (name == k.unit || name == confState+k.unit)
	return k.Keeper.Save(name, state)
}

// A unit that was removed does not come back, whenever the supervisor dies that forgets it.
func TestForgottenHalfWayIsForgotten(t *testing.T) {
	f := prepare(t, "web", onDemand, "gone", strings.Replace(onDemand, "[socket", "start = \"boot\"\n[socket", 1))
	f.wrap = &dying{Keeper: f.keeper, unit: "gone"}
	f.start()
	f.awaitState("gone", 1, "ready")
	os.Remove(filepath.Join(f.dir, "gone.toml"))
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.until("gone is gone", func() bool { _, ok := f.s.Unit("gone"); return !ok })
	f.crash()
	f.wrap = nil
	f.start()
	if st, ok := f.s.Unit("gone"); ok {
		t.Errorf("it is back, and %s", st.State)
	}
	if _, ok := f.s.Unit("web"); !ok {
		t.Error("the other is not there")
	}
}
