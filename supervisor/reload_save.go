package supervisor

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/units"
)

// A reload is followed whole, also where supervisors die half-way: what it is about to
// do is saved before, and forgotten when it is done.

// reloadState is the name of the saved names of all units that there are to be. What the
// files say of those that are added or change is saved before, unit by unit, as reload/web:
// all of it may be more than one message to the keeper can hold.
const reloadState = "reload/"

func (s *Supervisor) saveReloading(set *units.Set, plan *reloading) error {
	for _, conf := range plan.confs() {
		if err := s.saveJSON(reloadState+conf.Name, conf); err != nil {
			return err
		}
	}
	names := make([]string, len(set.Units))
	for i, conf := range set.Units {
		names[i] = conf.Name
	}
	return s.saveJSON(reloadState, names)
}

func (s *Supervisor) saveJSON(name string, what any) error {
	state, err := json.Marshal(what)
	if err != nil {
		return err
	}
	return s.keeper.Save(name, state)
}

// confs are the configurations that are new to the supervisor.
func (p *reloading) confs() []*units.Unit {
	var all []*units.Unit
	for _, u := range p.added {
		all = append(all, u.conf)
	}
	for _, c := range p.changed {
		all = append(all, c.conf)
	}
	return all
}

// forgetReloading forgets what saveReloading has saved.
func (s *Supervisor) forgetReloading(plan *reloading) {
	s.keeper.Save(reloadState, nil)
	for _, conf := range plan.confs() {
		s.keeper.Save(reloadState+conf.Name, nil)
	}
}

// goOnReloading finishes the reload that a supervisor before us was about.
func (s *Supervisor) goOnReloading(inv keeper.Inventory) {
	if _, ok := inv.States[reloadState]; ok {
		set, err := s.recallReloading(inv)
		if err == nil {
			_, err = s.apply(set)
		}
		if err != nil {
			s.log.Error("not reloaded", "err", err)
		}
		s.keeper.Save(reloadState, nil)
		s.bringGone(s.between)
		s.release(s.between)
		s.between = nil
		for _, u := range s.units {
			u.released()
		}
	}
	for name := range inv.States { // also of one that was cut short before it had begun
		if strings.HasPrefix(name, reloadState) {
			s.keeper.Save(name, nil)
		}
	}
}

// recallReloading is the set of units that was about to be followed.
func (s *Supervisor) recallReloading(inv keeper.Inventory) (*units.Set, error) {
	var names []string
	if err := json.Unmarshal(inv.States[reloadState], &names); err != nil {
		return nil, fmt.Errorf("what was to be reloaded: %w", err)
	}
	set := &units.Set{}
	for _, name := range names {
		conf := &units.Unit{}
		if state, ok := inv.States[reloadState+name]; ok {
			if err := json.Unmarshal(state, conf); err != nil {
				return nil, fmt.Errorf("unit %s: what was to be reloaded: %w", name, err)
			}
		} else if u := s.units[name]; u != nil {
			conf = u.conf
		} else {
			return nil, fmt.Errorf("unit %s: it is not saved what was to be reloaded", name)
		}
		set.Units = append(set.Units, conf)
	}
	return set, nil
}
