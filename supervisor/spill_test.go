package supervisor

import (
	"encoding/json"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/fake"
	"github.com/sockd/sockd/supervisor/internal/keeper"
	"golang.org/x/sys/unix"
)

// Each byte that is thrown away is counted once, also of a last line that a supervisor
// had in hand when it died: it is on its way, and still saved as an unfinished one.
func TestSpillCountsALastLineOnce(t *testing.T) {
	k := fake.NewKeeper()
	defer k.Close()
	var taken [2]int
	if err := unix.Pipe2(taken[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer closePair(taken)
	unix.Write(taken[1], []byte("d"))
	state, err := json.Marshal(owner{Unit: "web", Instance: 1, Gen: 7, Rest: []byte("half the wor"), Last: true})
	if err != nil {
		t.Fatal(err)
	}
	p, err := newSpill(k, keeper.Inventory{
		Descriptors: map[string]int{takenHeld[0]: taken[0]},
		States: map[string][]byte{outState: state,
			restState + "web@1.7": []byte("half the word"), restState + "web@2.8": []byte("another")},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.close()
	for run, want := range map[keeper.ID]int{{Unit: "web", Instance: 1, Gen: 7}: 13, {Unit: "web", Instance: 2, Gen: 8}: 7} {
		if got := p.counts[run]; got != want {
			t.Errorf("%s: %d bytes, want %d", run, got, want)
		}
	}
}
