package supervisor

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/steer"
	"golang.org/x/sys/unix"
)

// Sockets that are still in the hands of steering that is gone are steered by the next
// best at first, and as well as can be when they have been let go.
func TestSteeringOfAnotherIsWaitedForOutsideTheLoop(t *testing.T) {
	if probe().Best != steer.EBPF {
		t.Skipf("eBPF is not to be had here: %s", probe().Levels[0].Failed)
	}
	t.Setenv(levelVariable, steer.Hash.String())
	f := newFixture(t, "web", fmt.Sprintf(siblings, "", 3, `restart = "no"`))
	f.do("start", "web", Done)
	address := f.address("web", "http")
	var fds []int
	f.s.ask(t.Context(), func() error { fds = f.s.units["web"].groups[0].fds; return nil })
	third := f.unit("web").Instances[2].Runs[0].Pid
	kill(t, third)
	f.awaitState("web", 3, "exited")
	f.crash()
	other, err := steer.Open(fds, steer.EBPF, steer.Options{})
	if err != nil || other.Level() != steer.EBPF {
		t.Fatal(err, other)
	}
	os.Unsetenv(levelVariable) // until the end of the test
	f.start()
	if level := f.unit("web").Sockets[0].Steering; level == steer.EBPF.String() {
		t.Fatalf("sockets of another group are steered: %s", level)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	f.until("the best there is", func() bool { return f.unit("web").Sockets[0].Steering == steer.EBPF.String() })
	for range 100 {
		if a, err := ask("tcp", address); err != nil || a.instance == 3 {
			t.Fatalf("%+v, %v: an instance that is down got something", a, err)
		}
	}
}

// A loose keeper does not hold what steering there is.
type loose struct {
	keeper.Keeper
	asked atomic.Int32
}

func (k *loose) Hold(name string, fd int) error {
	if strings.HasPrefix(name, "steer/") {
		k.asked.Add(1)
		return unix.EMFILE
	}
	return k.Keeper.Hold(name, fd)
}

// What the keeper does not hold is closed: here it would be a map of eBPF, or the memory of
// a classic program.
func TestSteeringThatIsNotHeldIsClosed(t *testing.T) {
	f := prepare(t)
	k := &loose{Keeper: f.keeper}
	f.wrap = k
	f.write("web", fmt.Sprintf(siblings, "", 2, ""))
	f.start()
	f.do("start", "web", Done)
	f.steered("web")
	held := map[string]bool{}
	f.s.ask(t.Context(), func() error {
		for _, fd := range f.s.units["web"].groups[0].steer.Held() {
			held[objectBehind(strconv.Itoa(fd))] = true
		}
		return nil
	})
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, e := range entries {
		if held[objectBehind(e.Name())] {
			total++
		}
	}
	if k.asked.Load() == 0 || len(held) == 0 || total != len(held) {
		t.Errorf("the group has %d descriptors, the process %d of the same", len(held), total)
	}
}

// objectBehind tells which map or memory is behind a descriptor of this process.
func objectBehind(fd string) string {
	var st unix.Stat_t
	if unix.Stat("/proc/self/fd/"+fd, &st) != nil {
		return "nothing"
	}
	info, _ := os.ReadFile("/proc/self/fdinfo/" + fd)
	_, id, _ := strings.Cut(string(info), "map_id:") // maps have one inode together
	id, _, _ = strings.Cut(id, "\n")
	return fmt.Sprint(st.Dev, st.Ino, id)
}

// A place whose socket comes back has its weight again.
func TestSocketThatComesBackIsSteeredTo(t *testing.T) {
	f := newFixture(t, "web", fmt.Sprintf(siblings, "", 2, ""))
	f.do("start", "web", Done)
	f.steered("web")
	address := f.address("web", "http")
	err := f.s.ask(t.Context(), func() error {
		u := f.s.units["web"]
		g, k := u.groups[0], u.sockets[1]
		if err := g.steer.Leave(1); err != nil {
			return err
		}
		f.s.setWeights(u, []int{1, 1}) // the first goes on
		return f.relisten(u, k)
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 200 { // the process of instance 2 does not accept any more: who comes to it waits
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if f.unit("web").Sockets[1].Queued > 0 {
			return
		}
	}
	t.Error("of 200 clients none came to the instance whose socket is back")
}

// relisten has a listener that was shut down listen again. It is for the loop.
func (f *fixture) relisten(u *unit, k *socket) error {
	if !f.s.listenAgain(u, k) {
		return fmt.Errorf("%s listens", k.where())
	}
	return nil
}
