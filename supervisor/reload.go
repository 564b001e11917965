package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
)

// Reload reads the units again and does what has changed: units added are started,
// units removed are stopped, and a changed one goes on with its sockets, which are
// matched by address and instance, whatever they are called and whose they are. New sockets are bound before old
// ones are closed. All or nothing: on any problem it returns it, and nothing has
// changed.
func (s *Supervisor) Reload(ctx context.Context) error {
	_, err := s.reload(ctx)
	return err
}

// reload is Reload; it says too what the files ask for and living sockets do not take.
// One comes after the other: what was read first must not be followed last.
func (s *Supervisor) reload(ctx context.Context) (warnings []string, err error) {
	if s.cfg.Load == nil {
		return nil, errors.New("reload: this supervisor does not read its units from files")
	}
	select {
	case s.reloads <- struct{}{}:
		defer func() { <-s.reloads }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.quit:
		return nil, ErrEnded
	}
	set, err := s.cfg.Load()
	if err != nil {
		s.log.Error("not reloaded", "err", err)
		return nil, err
	}
	err = s.ask(ctx, func() (err error) {
		warnings, err = s.apply(set)
		return err
	})
	if err != nil {
		s.log.Error("not reloaded", "err", err)
	}
	return warnings, err
}

// A reloading is all that will change, once it is known that it can.
type reloading struct {
	bindings map[string]*binding
	added    []*unit
	removed  []*unit
	changed  []respecified
}

// A respecified unit goes on with another configuration; if replace, its runs are
// replaced one by one.
type respecified struct {
	conf    *units.Unit
	replace bool
}

// apply makes the units be as set says. Warnings are of options that cannot be changed.
func (s *Supervisor) apply(set *units.Set) (warnings []string, err error) {
	if s.stopping {
		return nil, errors.New("reload: sockd is stopping")
	}
	plan, err := s.plan(set)
	if err != nil {
		return nil, err
	}
	passing("reload: bound")
	if err := s.saveReloading(set, plan); err != nil {
		s.forgetReloading(plan)
		for _, b := range plan.bindings {
			b.undo()
		}
		return nil, fmt.Errorf("reload: not saved: %w", err)
	}
	gone, err := s.hold(plan)
	if err != nil {
		s.forgetReloading(plan)
		return nil, err
	}
	s.cfg.Units = set
	passing("reload: held")
	s.steerAll(keeper.Inventory{})
	gone = append(gone, s.between...)
	s.bringGone(gone) // before anybody else is started
	for _, c := range plan.changed {
		warnings = append(warnings, s.respec(s.units[c.conf.Name], c.conf, c.replace)...)
	}
	for _, u := range plan.removed {
		u.removed = true
		s.handle(u, machine.Stop{})
	}
	for _, u := range plan.added {
		s.start(u)
	}
	for _, u := range s.sorted() {
		s.refit(u)
		s.bringAll(u)
		s.healPaths(u, true)
	}
	passing("reload: handled")
	s.release(gone)
	s.between = nil
	passing("reload: released")
	for name := range plan.bindings {
		s.units[name].released()
	}
	s.settleFollowing()
	s.publishUnits()
	s.forgetReloading(plan)
	s.log.Info("reloaded", "units", len(set.Units), "added", len(plan.added), "removed", len(plan.removed), "changed", len(plan.changed))
	return warnings, nil
}

// plan binds every socket that will be needed, or says why it cannot.
func (s *Supervisor) plan(set *units.Set) (*reloading, error) {
	p := &reloading{bindings: map[string]*binding{}}
	var problems []error
	spare := slices.Clone(s.between) // that a unit gives up: one that was renamed, or has them now, goes on with them
	bind := func(u *unit, conf *units.Unit) {
		b, err := s.bind(u, conf, instancesIn(conf), spare)
		if err != nil {
			problems = append(problems, err)
			return
		}
		spare = slices.DeleteFunc(spare, func(k *socket) bool { return slices.Contains(b.taken, k) })
		p.bindings[conf.Name] = b
	}
	byName := map[string]*units.Unit{}
	for _, conf := range set.Units {
		byName[conf.Name] = conf
	}
	changes := units.Compare(s.current(), set)
	for _, c := range changes {
		if c.What == units.Removed {
			u := s.units[c.Unit]
			p.removed = append(p.removed, u)
			spare = append(spare, u.sockets...)
		} else if u := s.units[c.Unit]; u != nil {
			spare = append(spare, u.unwanted(byName[c.Unit])...)
		}
	}
	for _, u := range s.units {
		if u.removed && byName[u.conf.Name] == nil { // removed before, and still leaving
			spare = append(spare, u.sockets...)
		}
	}
	for _, c := range changes {
		u, conf := s.units[c.Unit], byName[c.Unit]
		switch {
		case conf == nil:
		case u == nil:
			u = newUnit(conf)
			p.added = append(p.added, u)
			bind(u, conf)
		default: // changed, or removed before and still leaving
			p.changed = append(p.changed, respecified{conf, c.Replace || u.removed})
			bind(u, conf)
		}
	}
	if len(problems) > 0 {
		for _, b := range p.bindings {
			b.undo()
		}
		return nil, errors.Join(problems...)
	}
	return p, nil
}

// respec lets a unit go on as conf says, and warns of options that cannot be changed.
func (s *Supervisor) respec(u *unit, conf *units.Unit, replace bool) (warnings []string) {
	begins := u.removed || u.conf.Service == nil
	if u.canary != nil {
		u.canary, u.canaryEnd = nil, "its file has changed"
	}
	u.conf, u.removed = conf, false
	warnings = s.changeOptions(u)
	s.changeFlows(u)
	s.spreadSockets(u)
	if conf.Service == nil {
		s.handle(u, machine.Stop{})
		return warnings
	}
	u.stopSignal = conf.Service.StopSignal
	var upto uint64
	if replace {
		upto = u.machine.LastGen
	}
	s.handle(u, machine.Respec{Spec: s.spec(u), Upto: upto})
	if begins {
		s.handle(u, machine.Start{})
	}
	s.noteWish(u)
	s.rewatch(u)
	return warnings
}

// changeOptions gives the sockets that a unit keeps the options that its file has now.
func (s *Supervisor) changeOptions(u *unit) (warnings []string) {
	was := make([]*sys.Options, len(u.sockets))
	for i, k := range u.sockets {
		was[i] = k.options
	}
	s.setOptions(u)
	for i, k := range u.sockets {
		if was[i] == nil {
			continue
		}
		for _, w := range sys.ChangeOptions(k.fd, was[i], k.options) {
			s.log.Warn("option not changed", "unit", u.conf.Name, "socket", k.where(), "err", w)
			warnings = append(warnings, fmt.Sprintf("unit %s: socket %s: %s: %s", u.conf.Name, k.name, k.where(), w))
		}
	}
	return warnings
}

// start begins a new unit's life.
func (s *Supervisor) start(u *unit) {
	u.begun = true
	if u.conf.Service == nil {
		s.commit(u, nil)
		return
	}
	spec := s.spec(u)
	spec.Instances = u.instances()
	u.machine.Spec = spec
	s.handle(u, machine.Start{})
}

// rewatch arms sockets that have come while the machine was watching already.
func (s *Supervisor) rewatch(u *unit) {
	if u.machine.Watched {
		s.watchFor(u, 0)
	}
	for i := range u.machine.Instances {
		if u.machine.Instances[i].Watched {
			s.watchFor(u, i+1)
		}
	}
}

// current is the set that the supervisor follows now, without units that leave.
func (s *Supervisor) current() *units.Set {
	set := &units.Set{}
	for _, u := range s.sorted() {
		if !u.removed {
			set.Units = append(set.Units, u.conf)
		}
	}
	return set
}
