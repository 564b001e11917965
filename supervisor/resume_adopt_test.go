package supervisor

import (
	"testing"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"golang.org/x/sys/unix"
)

// A run whose notify socket cannot be watched, for want of memory or watches, is read
// all the same: else it would wait for ever in a write.
func TestAdoptedRunIsReadThoughItIsNotHeard(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	id := keeper.ID{Unit: "web", Instance: 1, Gen: 99}
	unix.Write(p[1], []byte("heard of\n"))
	err := f.s.ask(t.Context(), func() error {
		u := f.s.units["web"]
		if err := f.keeper.Hold("log/"+id.String(), p[0]); err != nil {
			return err
		}
		inv := keeper.Inventory{Descriptors: map[string]int{"notify/" + id.String(): 1 << 20, "log/" + id.String(): p[0]}} // the first is none
		if f.s.adopt(u, keeper.Child{ID: id, Pid: 1, Running: true}, inv) == nil {
			t.Error("no error")
		}
		f.s.letGo(u.runs[id.Gen])
		return nil
	})
	unix.Close(p[1])
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "its output", func() bool { return f.out.String() == "web@1 | heard of\n" })
}
