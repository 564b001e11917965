package supervisor

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
	"golang.org/x/sys/unix"
)

// begin goes on from what the keeper has, which is nothing on a fresh start: one road
// after a boot, a crash, an upgrade and the death of a keeper. It returns the listener
// of the control socket, nil if there is to be none. After an error nothing has been
// started, and what was held before is held still.
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
		return s.openControl(dir, inv)
	}
	// Every socket that is to be there is open, held, steered and on the saved state.
	if control, err = s.openAll(dir, inv, fresh); err != nil {
		if fresh {
			left.spare(s.units, dir)
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
	box, err := newOutbox(s.keeper, inv, s.cfg.Output)
	if err != nil {
		return nil, fmt.Errorf("output: %w", err)
	}
	box.failed = s.outputFailed
	s.logs.open(box)
	s.takePassed(inv)
	if err := s.openSockets(); err != nil {
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
	s.steerAll(inv)
	s.dropPassed()
	passing("begin: sockets open")
	return control, nil
}

// openSockets binds what is missing, unit by unit, and releases what is too much.
func (s *Supervisor) openSockets() error {
	var problems []error
	var bindings []*binding
	for _, u := range s.sorted() {
		if u.removed {
			continue
		}
		b, err := s.bind(u, u.conf, u.instances(), nil)
		var gone []*socket
		if err == nil {
			gone, err = s.commitBinding(b)
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		s.release(gone)
		u.released()
		b.leaving = nil
		b.before = slices.DeleteFunc(slices.Clone(b.before), func(k *socket) bool { return slices.Contains(gone, k) })
		bindings = append(bindings, b)
	}
	return errors.Join(append(problems, s.settleBindings(bindings...))...)
}

// takeOver has the keeper go on with what a killed one has left, keep its own record
// from now on, and remember that all units are saved. It returns what there is then.
func (s *Supervisor) takeOver(dir *runtimeDir, left *orphans, inv keeper.Inventory) (keeper.Inventory, error) {
	s.adoptOrphans(left, inv)
	if err := s.keepRecords(dir); err != nil {
		s.log.Warn("no records: if the keeper is killed, nobody will know of its services", "err", err)
	}
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

// resume takes up the runs the keeper lists, lets the machine square them with
// what was saved, and replays the news that nobody has acknowledged.
func (s *Supervisor) resume(u *unit, children []keeper.Child, inv keeper.Inventory) {
	var held []machine.Held
	var pending []keeper.Event
	for _, c := range children {
		if err := s.adopt(u, c, inv); err != nil {
			s.log.Error("run not adopted", "unit", u.conf.Name, "instance", c.ID.Instance, "generation", c.ID.Gen, "err", err)
		}
		ended := slices.ContainsFunc(c.Pending, func(ev keeper.Event) bool { return ev.Kind != keeper.Execed })
		held = append(held, machine.Held{Instance: c.ID.Instance, Gen: c.ID.Gen, Running: c.Running, Ended: ended, Signal: u.toldToLeave(c.Last)})
		pending = append(pending, c.Pending...)
	}
	if !u.begun && len(held) > 0 { // its state could not be read: take over what runs
		u.begun, u.machine.Up = true, true
	}
	if u.begun {
		s.commit(u, u.machine.Recover(s.now(), held))
		if u.removed {
			s.handle(u, machine.Stop{})
		} else {
			s.refit(u)
		}
	} else {
		s.start(u)
	}
	u.before = nil
	s.settleFollowing()
	s.goOnCanary(u)
	for _, ev := range pending {
		s.hear(ev)
	}
}

// adopt takes up a run that was started before this supervisor began.
func (s *Supervisor) adopt(u *unit, c keeper.Child, inv keeper.Inventory) error {
	r := &run{id: c.ID, unit: u, pid: c.Pid, asked: time.Now(), notify: -1, log: -1, logDone: true}
	if f, ok := u.facts[c.ID.Gen]; ok {
		r.asked, r.ready, r.status, r.errno = f.Asked, f.Ready, f.Status, f.Errno
	}
	r.user = u.userOf(c.ID.Gen)
	u.runs[c.ID.Gen] = r
	s.live++
	s.processes++
	if fd, ok := inv.Descriptors[r.held("gate")]; ok {
		r.door = fd
	}
	if fd, ok := inv.Descriptors[r.held("notify")]; ok {
		r.notify = fd
		if c.Running { // else from the news of exec on
			if err := s.watchNotify(r); err != nil {
				return err
			}
		}
	}
	if fd, ok := inv.Descriptors[r.held("log")]; ok {
		r.log, r.logDone, r.rest = fd, false, inv.States[restState+c.ID.String()]
		return s.readLog(r)
	}
	return nil
}

// adoptLogs goes on reading what runs have written whose end was dealt with before
// their log had been read.
func (s *Supervisor) adoptLogs(inv keeper.Inventory) {
	for name, fd := range inv.Descriptors {
		id, ok := logOf(name)
		u := s.units[id.Unit]
		if !ok || u == nil || u.runs[id.Gen] != nil {
			continue
		}
		r := &run{id: id, unit: u, notify: -1, log: fd, exited: true, rest: inv.States[restState+id.String()]}
		u.runs[id.Gen] = r
		s.live++
		if err := s.readLog(r); err != nil {
			s.log.Error("log not read", "run", id.String(), "err", err)
			s.keeper.Release(name)
			s.forgetRun(r)
			continue
		}
		s.logs.finish(r.logKey)
	}
}

// logOf says whose log a held descriptor is: log/web@2.7.
func logOf(held string) (id keeper.ID, ok bool) {
	rest, ok := strings.CutPrefix(held, "log/")
	unit, rest, cut := strings.Cut(rest, "@")
	n, err := fmt.Sscanf(rest, "%d.%d", &id.Instance, &id.Gen)
	id.Unit = unit
	return id, ok && cut && n == 2 && err == nil
}

// dropStrangers closes descriptors that belong to nothing any more, and ends runs
// whose unit left no saved state.
func (s *Supervisor) dropStrangers(inv keeper.Inventory) {
	known := map[string]bool{"control": true, lockHeld: true, takenHeld[0]: true, takenHeld[1]: true, madeHeld[0]: true, madeHeld[1]: true, keeper.RecordHeld: true}
	for _, u := range s.units {
		for _, k := range u.sockets {
			known[k.held] = true
		}
		for _, e := range u.stored {
			known[e.held] = true
		}
		for _, g := range u.groups {
			for _, name := range g.held {
				known[name] = true
			}
		}
		for _, r := range u.runs {
			known[r.held("notify")], known[r.held("log")], known[r.held("gate")] = true, true, true
		}
	}
	for name := range inv.Descriptors {
		if !known[name] {
			s.keeper.Release(name)
		}
	}
	s.dropChecks(inv)
	for _, c := range inv.Children {
		ended := slices.ContainsFunc(c.Pending, func(ev keeper.Event) bool { return ev.Kind != keeper.Execed })
		if s.units[c.ID.Unit] == nil && !isCheck(c.ID) && !ended {
			s.log.Warn("unknown run ended", "unit", c.ID.Unit, "instance", c.ID.Instance, "generation", c.ID.Gen, "pid", c.Pid)
			s.keeper.Signal(c.ID, unix.SIGKILL)
		}
	}
}
