package supervisor

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor/internal/fake"
	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

// An adopting keeper plays the runs that it is asked to adopt.
type adopting struct{ *fake.Keeper }

func (k adopting) Adopt(s keeper.Survivor) error {
	return k.Spawn(s.ID, keeper.Process{Argv: []string{"survivor"}})
}

// Each orphan has the time its own unit gives it; one without a limit is not killed at once.
func TestOrphansHaveTheirOwnTime(t *testing.T) {
	set := &units.Set{}
	var list []*orphan
	for name, limit := range map[string]time.Duration{"patient": 0, "stubborn": time.Millisecond, "slow": time.Hour} {
		set.Units = append(set.Units, &units.Unit{Name: name, Service: &units.Service{StopSignal: unix.SIGTERM, StopTimeout: limit}})
		list = append(list, &orphan{keeper.Survivor{ID: keeper.ID{Unit: name, Instance: 1, Gen: 1}}, &sys.Process{}})
	}
	k := fake.NewKeeper()
	defer k.Close()
	var killed []string
	k.OnSpawn = func(id keeper.ID, _ keeper.Process) { k.Exec(id) }
	k.OnSignal = func(id keeper.ID, sig unix.Signal) {
		if sig != unix.SIGKILL {
			return
		}
		killed = append(killed, id.Unit)
		k.Die(id, sig)
		if id.Unit == "stubborn" { // the others leave only now
			for _, name := range []string{"patient", "slow"} {
				if !slices.Contains(killed, name) {
					k.Exit(keeper.ID{Unit: name, Instance: 1, Gen: 1}, 0)
				}
			}
		}
	}
	s := New(Config{Units: set, Log: slog.New(slog.DiscardHandler), keeper: adopting{k}})
	s.endOrphans(&orphans{dir: t.TempDir(), record: &keeper.Record{}}, list)
	if !slices.Equal(killed, []string{"stubborn"}) {
		t.Errorf("killed %v, want only the one whose time was over", killed)
	}
	if inv, err := k.Inventory(); err != nil || len(inv.Children) > 0 {
		t.Errorf("left %v, %v", inv.Children, err)
	}
}
