package supervisor

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
)

// begin goes on from what the keeper has, which is nothing on a fresh start: one road
// after a boot, a crash, an upgrade and the death of a keeper. It returns the listener
// of the control socket, nil if there is to be none. After an error nothing has been
// started, and what was held or on record before is so still.
func (s *Supervisor) begin(dir *runtimeDir, inv keeper.Inventory) (control net.Listener, err error) {
	// Which units there are. On a fresh start the files say so, else those who were here before.
	fresh, err := s.configuration(inv)
	if err != nil {
		return nil, err
	}
	// The sockets of services that have outlived their keeper are back.
	var left *orphans
	if fresh && s.safe() == "" {
		if left, err = s.findOrphans(dir, inv); err != nil {
			return nil, err
		}
	}
	// Each unit is as it was left, or new.
	s.recallUnits(inv, left, fresh)
	if s.safe() != "" {
		s.show(inv)
		s.carry(inv)
		return s.openControl(dir, inv)
	}
	// Every socket that is to be there is open, held, steered and on the saved state.
	if control, err = s.openAll(dir, inv, fresh); err != nil {
		if fresh {
			left.spare(s.units)
			s.releaseAll()
		}
		return nil, err
	}
	// The keeper lists every run that lives. From here on a supervisor that dies is followed
	// by one for which nothing is fresh.
	if fresh {
		if inv, err = s.takeOver(dir, left, inv); err != nil {
			return nil, err
		}
	}
	// Each machine knows its runs, and has heard what nobody had.
	s.resumeAll(inv, left)
	// What was under way goes on.
	s.goOnReloading(inv)
	s.goOnEnding(inv)
	return control, nil
}

// openAll opens output, sockets and the control socket. On a fresh start all of them
// must be had; later, what cannot be is said, and the rest goes on.
func (s *Supervisor) openAll(dir *runtimeDir, inv keeper.Inventory, fresh bool) (control net.Listener, err error) {
	box, err := newOutbox(s.keeper, inv, s.cfg.Output, s.sendOff)
	if err != nil {
		return nil, fmt.Errorf("output: %w", err)
	}
	box.failed = s.outputFailed
	s.logs.open(box)
	s.takePassed(inv)
	_, reloading := inv.States[reloadState]
	if err := s.openSockets(reloading); err != nil {
		if fresh {
			return nil, err
		}
		s.log.Error("sockets not bound", "err", err)
	}
	if control, err = s.openControl(dir, inv); err != nil {
		if fresh {
			return nil, err
		}
		s.log.Error("no control socket", "err", err)
	}
	s.steerUntil = time.Now().Add(steerPatience)
	s.steerAll(inv)
	s.dropPassed()
	passing("begin: sockets open")
	return control, nil
}

// openSockets binds what is missing, unit by unit, and then releases what is too much:
// while a reload is under way that may be on its way to another unit, and stays.
func (s *Supervisor) openSockets(reloading bool) error {
	var problems []error
	var bindings []*binding
	var gone []*socket
	for _, u := range s.sorted() {
		if u.removed || u.settled() {
			continue
		}
		b, err := s.bind(u, u.conf, u.instances(), nil)
		if err == nil {
			var g []*socket
			g, err = s.commitBinding(b)
			gone, bindings = append(gone, g...), append(bindings, b)
		}
		problems = append(problems, err)
	}
	if err := s.settleBindings(bindings...); err != nil {
		return errors.Join(append(problems, err)...)
	}
	if reloading {
		s.between = gone
		return errors.Join(problems...)
	}
	s.bringGone(gone)
	s.release(gone)
	for _, b := range bindings {
		b.unit.released()
	}
	return errors.Join(problems...)
}

// takeOver has the keeper go on with what a killed one has left, keep its own record
// from now on, and remember that all units are saved. It returns what there is then.
func (s *Supervisor) takeOver(dir *runtimeDir, left *orphans, inv keeper.Inventory) (keeper.Inventory, error) {
	s.adoptOrphans(left, inv)
	if err := s.keepRecords(dir); err != nil {
		s.log.Warn("no records: if the keeper is killed, nobody will know of its services", "err", err)
	}
	dir.keep = false
	if err := s.keeper.Save(followedState, []byte{}); err != nil {
		return inv, fmt.Errorf("keeper: %w", err)
	}
	return s.keeper.Inventory()
}

// resumeAll takes up every run, its output, and what belongs to none.
func (s *Supervisor) resumeAll(inv keeper.Inventory, left *orphans) {
	s.publishUnits()
	children := childrenOf(inv)
	for _, u := range s.sorted() {
		s.resume(u, children[u.conf.Name], inv)
		if left.outdated(u) {
			s.log.Warn("orphans replaced", "unit", u.conf.Name, "because", "its file has changed")
			s.handle(u, machine.Replace{Upto: u.machine.LastGen})
			s.settleFollowing()
		}
	}
	passing("begin: runs resumed")
	s.adoptLogs(inv)
	s.adoptLeft(inv)
	s.tellSpilt(inv)
	s.dropStrangers(inv)
}

// childrenOf sorts the runs that a keeper lists by unit.
func childrenOf(inv keeper.Inventory) map[string][]keeper.Child {
	all := map[string][]keeper.Child{}
	for _, c := range inv.Children {
		all[c.ID.Unit] = append(all[c.ID.Unit], c)
	}
	return all
}
