package supervisor

import (
	"encoding/json"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// A process that was started by a supervisor that died before it saved so counts as started,
// once, whoever is the third.
func TestStartsOutliveACrash(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	ask("tcp", f.address("web", "http"))
	f.awaitState("web", 1, "ready")
	starts := func() int { return f.unit("web").Instances[0].Starts }
	if starts() != 1 {
		t.Fatalf("%d starts", starts())
	}
	inv, err := f.keeper.Inventory()
	if err != nil {
		t.Fatal(err)
	}
	f.crash()
	// What was saved before the start was acted upon.
	var saved map[string]json.RawMessage
	if err := json.Unmarshal(inv.States["web"], &saved); err != nil {
		t.Fatal(err)
	}
	delete(saved, "Runs")
	delete(saved, "Places")
	text, _ := json.Marshal(saved)
	if err := f.keeper.Save("web", text); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		f.start()
		if starts() != 1 {
			t.Errorf("%d starts after a crash", starts())
		}
		f.crash()
	}
	f.start()
	u := newUnit(f.s.units["web"].conf)
	u.lastExit[0].Gen = 7 // that was saved, and not acknowledged
	for gen := range uint64(3) {
		u.countStart(keeper.ID{Unit: "web", Instance: 1, Gen: 6 + gen})
	}
	if u.starts[0] != 1 {
		t.Errorf("%d starts since one whose end was saved", u.starts[0])
	}
}
