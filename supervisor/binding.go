package supervisor

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// undo closes what was bound for the plan.
func (b *binding) undo() {
	for _, from := range b.taken { // its path is still in use
		for _, k := range b.made {
			if k.inode == from.inode {
				k.path = nil
			}
		}
	}
	for _, k := range b.made {
		unix.Close(k.fd)
		if k.path != nil {
			k.path.Remove()
		}
	}
}

// commitBinding gives the plan's new sockets to the keeper and makes them the unit's. The
// sockets no longer wanted are returned; they are still held.
func (s *Supervisor) commitBinding(b *binding) (gone []*socket, err error) {
	if len(b.made) == 0 && len(b.gone) == 0 && len(b.renamed) == 0 && slices.Equal(b.sockets, b.unit.sockets) && b.unit.savedConf == b.unit.conf {
		return nil, nil // nothing changes, and it is saved
	}
	b.before, b.leaving, b.committed = b.unit.sockets, b.unit.leaving, true
	b.rename()
	nameHeld(b.unit.conf.Name, slices.Concat(b.before, b.leaving), b.made)
	for _, k := range b.gone {
		// Of an instance that is one too many, the socket stays until that has gone: trim. It may
		// have gone, and a supervisor before us have died before it had trimmed.
		if k.instance > b.instances {
			b.sockets = append(b.sockets, k)
			continue
		}
		gone = append(gone, k)
	}
	b.unit.setSockets(b.sockets)
	b.unit.leaving = append(b.unit.leaving, gone...)
	if err := s.save(b.unit); err != nil { // first: what is held, and where its path is, is then known
		return nil, errors.Join(fmt.Errorf("unit %s: not saved: %w", b.unit.conf.Name, err), s.revert(b))
	}
	for i, k := range b.made {
		if err := s.keeper.Hold(k.held, k.fd); err != nil {
			return nil, errors.Join(fmt.Errorf("unit %s: socket %s: %w", b.unit.conf.Name, k.name, err), s.revert(b))
		}
		b.held = i + 1
	}
	for _, from := range b.taken {
		from.path = nil
		for _, u := range s.units {
			if u.has(from) { // when it has left, the path stays, whoever supervises then
				u.savedSockets = nil
				if err := s.save(u); err != nil {
					return nil, fmt.Errorf("unit %s: not saved: %w", u.conf.Name, err)
				}
			}
		}
	}
	return gone, nil
}

// settleBindings makes sure, before anything is done with them, that the keeper holds the
// sockets of plans that were committed. If it does not, all of them are taken back.
func (s *Supervisor) settleBindings(bindings ...*binding) error {
	if !slices.ContainsFunc(bindings, func(b *binding) bool { return b.held > 0 }) {
		return nil
	}
	err := s.keeper.Settle()
	if err == nil {
		return nil
	}
	problems := []error{fmt.Errorf("sockets not held: %w", err)}
	for _, b := range bindings {
		problems = append(problems, s.revert(b))
	}
	return errors.Join(problems...)
}

// revert takes a plan back, committed or not, of which nothing was released yet. To do
// it twice is harmless.
func (s *Supervisor) revert(b *binding) error {
	for _, k := range b.made[:b.held] {
		s.keeper.Release(k.held)
		k.fd = -1 // closed with it
	}
	changed := map[*unit]bool{}
	for _, from := range b.taken { // its path is its own again
		for _, k := range b.made {
			if k.inode == from.inode {
				from.path = k.path
			}
		}
		for _, u := range s.units {
			if u.has(from) {
				u.savedSockets, changed[u] = nil, true
			}
		}
	}
	b.undo()
	if b.committed {
		b.rename()
		b.unit.setSockets(b.before)
		b.unit.leaving = b.leaving
		changed[b.unit] = true
	}
	b.made, b.taken, b.renamed, b.held, b.committed = nil, nil, nil, 0, false
	var problems []error
	for u := range changed {
		if err := s.save(u); err != nil {
			problems = append(problems, fmt.Errorf("unit %s: not saved: %w", u.conf.Name, err))
		}
	}
	return errors.Join(problems...)
}

// hold commits the plans of a reload, all or none. The sockets no longer wanted are
// returned; they are still held.
func (s *Supervisor) hold(plan *reloading) (gone []*socket, err error) {
	for _, u := range plan.added {
		s.units[u.conf.Name] = u
	}
	var all []*binding
	var problems []error
	for _, b := range plan.bindings {
		g, err := s.commitBinding(b)
		gone, all, problems = append(gone, g...), append(all, b), append(problems, err)
	}
	if err = errors.Join(problems...); err == nil {
		err = s.settleBindings(all...)
	}
	if err == nil {
		return gone, nil
	}
	for _, b := range all {
		err = errors.Join(err, s.revert(b))
	}
	for _, u := range plan.added {
		s.unsave(u)
		delete(s.units, u.conf.Name)
	}
	return nil, err
}
