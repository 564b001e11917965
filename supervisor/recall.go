package supervisor

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/plain"
	"github.com/sockd/sockd/supervisor/internal/steer"
	"github.com/sockd/sockd/units"
)

// followedState is the name of the saved mark that all units of the files were saved.
const followedState = "followed/"

// configuration says which units there are: on a fresh start those of the files,
// later those that the supervisor before was following. A crash is no reload. A
// start that was cut short before all were saved is made again.
func (s *Supervisor) configuration(inv keeper.Inventory) (fresh bool, err error) {
	_, followed := inv.States[followedState]
	switch {
	case followed:
		s.cfg.Units = s.savedUnits(inv)
	case s.cfg.Units == nil && s.cfg.Load != nil:
		s.cfg.Units, err = s.cfg.Load()
	case s.cfg.Units == nil:
		s.cfg.Units = &units.Set{}
	}
	return !followed, err
}

// savedUnits reads the saved configurations.
func (s *Supervisor) savedUnits(inv keeper.Inventory) *units.Set {
	var states [][]byte
	for name, state := range inv.States {
		if strings.HasPrefix(name, confState) {
			states = append(states, state)
		}
	}
	confs := make([]*units.Unit, len(states))
	inParallel(len(states), func(i int) {
		conf := &units.Unit{}
		if err := plain.Unmarshal(states[i], conf); err != nil {
			s.log.Error("saved configuration set aside", "state", string(states[i]), "err", err)
			return
		}
		confs[i] = conf
	})
	confs = slices.DeleteFunc(confs, func(u *units.Unit) bool { return u == nil })
	slices.SortFunc(confs, func(a, b *units.Unit) int { return strings.Compare(a.Name, b.Name) })
	return &units.Set{Units: confs}
}

// recallUnits makes every unit: from its saved state, else from what a killed keeper
// has left of it, else anew.
func (s *Supervisor) recallUnits(inv keeper.Inventory, left *orphans, fresh bool) {
	confs := s.cfg.Units.Units
	s.targets = make(map[uint64]target, len(inv.Descriptors))
	all := make([]*unit, len(confs))
	now := s.now()
	_, ending := inv.States[endingState] // then that nothing is wished up is nobody's wish
	inParallel(len(all), func(i int) {
		conf := confs[i]
		before, saved := inv.States[conf.Name]
		read := readState{}
		if saved {
			read = readSaved(before)
		} else {
			read = left.state(conf, now)
		}
		u := s.recall(conf, read, inv.Descriptors)
		if u.before = before; !fresh { // it was saved so: it need not be saved again
			u.savedConf = conf
		}
		if !ending {
			u.wished = u.wish()
		}
		all[i] = u
	})
	for _, u := range all {
		s.units[u.conf.Name] = u
	}
	s.recallStores(inv)
}

// A readState is a unit's saved state, as far as there is one and it could be read.
type readState struct {
	saved   *savedUnit
	sockets []savedSocket
	err     error
}

// readSaved reads a saved state.
func readSaved(state []byte) readState {
	r := readState{saved: new(savedUnit)}
	if r.err = plain.Unmarshal(state, r.saved); r.err == nil {
		r.err = plain.Unmarshal(r.saved.Sockets, &r.sockets)
	}
	return r
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

// recall makes a unit from its state, or a new one if there is none. It changes nothing
// else: several are made at once.
func (s *Supervisor) recall(conf *units.Unit, read readState, held map[string]int) *unit {
	u := newUnit(conf)
	saved, err := read.saved, read.err
	switch {
	case saved == nil:
		return u
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
	} else {
		u.machine, u.removed, u.canary, u.begun = saved.Machine, saved.Removed, saved.Canary, !saved.New
		u.canaryEnd, u.heard = saved.CanaryEnd, saved.Heard
		u.resize()
		u.recallFacts(saved)
	}
	for _, k := range read.sockets { // they stay, whatever was decided
		if fd, ok := held[k.Held]; ok {
			opened := k.open(fd)
			opened.deaf = k.Instance > 0 && opened.listens() && steer.Deaf(fd)
			u.sockets = append(u.sockets, opened)
		}
	}
	if err == nil && len(u.sockets) == len(read.sockets) {
		u.savedSockets = saved.Sockets
	}
	s.setOptions(u)
	return u
}
