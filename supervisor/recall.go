package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

// followedState is the name of the saved mark that all units of the files were saved.
const followedState = "followed/"

// configuration says which units there are: on a fresh start those of the files,
// later those that the supervisor before was following. A crash is no reload. A
// start that was cut short before all were saved is made again.
func (s *Supervisor) configuration(inv keeper.Inventory) (fresh bool, err error) {
	_, followed := inv.States[followedState]
	set := &units.Set{}
	var states [][]byte
	for name, state := range inv.States {
		if strings.HasPrefix(name, confState) {
			states = append(states, state)
		}
	}
	confs := make([]*units.Unit, len(states))
	inParallel(len(states), func(i int) {
		conf := &units.Unit{}
		if err := json.Unmarshal(states[i], conf); err != nil {
			s.log.Error("saved configuration set aside", "state", string(states[i]), "err", err)
			return
		}
		confs[i] = conf
	})
	set.Units = slices.DeleteFunc(confs, func(u *units.Unit) bool { return u == nil })
	fresh = !followed
	switch {
	case !fresh:
		slices.SortFunc(set.Units, func(a, b *units.Unit) int { return strings.Compare(a.Name, b.Name) })
		s.cfg.Units = set
	case s.cfg.Units == nil && s.cfg.Load != nil:
		if s.cfg.Units, err = s.cfg.Load(); err != nil {
			return fresh, err
		}
	case s.cfg.Units == nil:
		s.cfg.Units = set
	}
	return fresh, nil
}

// A readState is a unit's saved state, as far as it could be read.
type readState struct {
	found   bool
	saved   savedUnit
	sockets []savedSocket
	err     error
}

// readStates reads the saved states of units.
func readStates(set *units.Set, inv keeper.Inventory) []readState {
	all := make([]readState, len(set.Units))
	inParallel(len(all), func(i int) {
		r := &all[i]
		var state []byte
		if state, r.found = inv.States[set.Units[i].Name]; !r.found {
			return
		}
		if r.err = json.Unmarshal(state, &r.saved); r.err == nil {
			r.err = json.Unmarshal(r.saved.Sockets, &r.sockets)
		}
	})
	return all
}

// inParallel does n things on all processors: of what a supervisor that begins has to
// do, reading takes longest, and nobody supervises meanwhile.
func inParallel(n int, do func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wg.Wait()
}

// recall makes a unit from its saved state, or a new one if there is none.
func (s *Supervisor) recall(conf *units.Unit, read readState, inv keeper.Inventory) *unit {
	u := newUnit(conf)
	if !read.found {
		s.recallOrphans(u, s.orphans)
		return u
	}
	saved, sockets, err := read.saved, read.sockets, read.err
	switch {
	case err != nil:
	case saved.Version != stateVersion:
		err = fmt.Errorf("version %d, not %d", saved.Version, stateVersion)
	case saved.Machine == nil || len(saved.Machine.Instances) == 0:
		err = errors.New("it is empty")
	default:
		err = saved.Machine.Check()
	}
	if err != nil {
		s.log.Error("saved state set aside", "unit", conf.Name, "err", err)
		return u
	}
	u.machine, u.recalled, u.removed, u.canary, u.begun = saved.Machine, true, saved.Removed, saved.Canary, !saved.New
	u.resize()
	u.recallFacts(saved)
	for _, k := range sockets {
		if fd, ok := inv.Descriptors[k.Held]; ok {
			u.sockets = append(u.sockets, k.open(fd))
		}
	}
	if len(u.sockets) == len(sockets) {
		u.savedSockets = saved.Sockets
	}
	s.setOptions(u)
	return u
}

// toldToLeave is the last signal a run was sent, if that was to make it leave; else 0.
// The reload signal is for those that stay.
func (u *unit) toldToLeave(last unix.Signal) int {
	if sv := u.conf.Service; sv != nil && last == sv.ReloadSignal && last != u.stopSignal && last != unix.SIGKILL {
		return 0
	}
	return int(last)
}
