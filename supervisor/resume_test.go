package supervisor

import (
	"bytes"
	"slices"
	"sync"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// A counting keeper notes what is saved and what is held.
type counting struct {
	keeper.Keeper
	mu    sync.Mutex
	asked []string
}

func (k *counting) note(what string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, what)
}

// taken is what was noted since it was asked last.
func (k *counting) taken() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := k.asked
	k.asked = nil
	slices.Sort(all)
	return all
}

func (k *counting) Save(unit string, state []byte) error {
	k.note("save " + unit)
	return k.Keeper.Save(unit, state)
}

func (k *counting) Hold(name string, fd int) error {
	k.note("hold " + name)
	return k.Keeper.Hold(name, fd)
}

// A supervisor that goes on with what is as it was saved writes nothing of it again, and
// binds nothing; what is not so it writes.
func TestWhatIsSavedIsNotSavedAgain(t *testing.T) {
	f := prepare(t, "idle", onPath, "up", "[service]\nrole = serve\nready = \"notify\"\nstart = \"boot\"\n[socket.http]\nlisten = \"unix://./up2.sock\"\n")
	k := &counting{Keeper: f.keeper}
	f.wrap = k
	f.start()
	f.awaitState("up", 1, "ready")
	pid := f.unit("up").Instances[0].Runs[0].Pid
	f.crash()
	if first := k.taken(); !slices.Contains(first, "save idle") || !slices.Contains(first, "hold listen/up/http") {
		t.Fatalf("the first supervisor has asked for %q", first)
	}
	f.start()
	if again := k.taken(); len(again) > 0 {
		t.Errorf("the second one has asked for %q", again)
	}
	f.crash()
	k.taken()
	inv, err := f.keeper.Inventory()
	if err != nil {
		t.Fatal(err)
	}
	was := []byte(`"Watched":true`)
	state := bytes.Replace(inv.States["idle"], was, []byte(`"Watched":false`), 1)
	if bytes.Equal(state, inv.States["idle"]) {
		t.Fatalf("no %s in %s", was, state)
	}
	f.keeper.Save("idle", state)
	f.start()
	if again := k.taken(); !slices.Equal(again, []string{"save idle"}) {
		t.Errorf("the third one, for which idle was not watched, has asked for %q", again)
	}
	if now := f.unit("up").Instances[0].Runs[0].Pid; now != pid {
		t.Errorf("another process: %d, not %d", now, pid)
	}
}
