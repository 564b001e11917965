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
	"github.com/sockd/sockd/supervisor/internal/sys"
	"golang.org/x/sys/unix"
)

// begin asks the keeper what there is, which is nothing on a fresh start, and goes
// on from there: the same code after a boot, a crash and an upgrade. It returns the
// listener of the control socket, nil if there is to be none. After an error
// nothing has been started.
func (s *Supervisor) begin(dir *runtimeDir) (control net.Listener, err error) {
	inv, err := s.inventory()
	if err != nil {
		return nil, err
	}
	s.before = inv.States
	defer func() { s.before, s.found = nil, nil }()
	fresh, err := s.configuration(inv)
	if err != nil {
		return nil, err
	}
	if fd, ok := inv.Descriptors["control"]; ok {
		s.heldControl = fd
	}
	_, kept := inv.Descriptors[keeper.RecordHeld] // then the record is of the keeper that is there
	if fresh && !kept {
		if s.orphans, err = s.findOrphans(dir, inv); err != nil {
			dir.keep = true
			return nil, err
		}
	}
	all := readStates(s.cfg.Units, inv)
	for i, conf := range s.cfg.Units.Units {
		s.units[conf.Name] = s.recall(conf, all[i], inv)
		if !fresh { // it was saved so: it need not be saved again
			s.units[conf.Name].savedConf = conf
		}
	}
	s.recallStores(inv)
	if s.safe() != "" {
		s.show(inv)
		return s.openControl(dir)
	}
	box, err := newOutbox(s.keeper, inv, s.cfg.Output)
	if err != nil {
		return nil, fmt.Errorf("output: %w", err)
	}
	box.failed = s.outputFailed
	s.logs.open(box)
	s.takePassed(inv)
	if err := s.openAll(fresh); err != nil {
		s.spareOrphans(s.orphans, dir)
		s.releaseAll()
		return nil, err
	}
	if control, err = s.openControl(dir); err != nil {
		if fresh {
			s.spareOrphans(s.orphans, dir)
			s.releaseAll()
			return nil, err
		}
		s.log.Error("no control socket", "err", err)
	}
	s.steerAll(inv)
	if fresh { // every unit is saved by now: a crash from here on loses none
		if err := s.keeper.Save(followedState, []byte{}); err != nil {
			return nil, fmt.Errorf("keeper: %w", err)
		}
	}
	passing("begin: sockets open")
	s.dropPassed()
	s.publishUnits()
	if fresh && !kept {
		if inv, err = s.takeOrphans(dir); err != nil {
			return nil, err
		}
	}
	children := map[string][]keeper.Child{}
	for _, c := range inv.Children {
		children[c.ID.Unit] = append(children[c.ID.Unit], c)
	}
	for _, u := range s.sorted() {
		s.resume(u, children[u.conf.Name], inv)
	}
	passing("begin: runs resumed")
	s.adoptLogs(inv)
	s.dropStrangers(inv)
	s.replaceOrphans()
	s.goOnReloading(inv)
	s.goOnEnding(inv)
	return control, nil
}

// inventory asks the keeper what there is, once.
func (s *Supervisor) inventory() (keeper.Inventory, error) {
	if s.found != nil {
		return *s.found, nil
	}
	inv, err := s.keeper.Inventory()
	if err != nil {
		return inv, fmt.Errorf("keeper: %w", err)
	}
	s.found = &inv
	return inv, nil
}

// setOptions notes for a unit's sockets what its file says of them now.
func (s *Supervisor) setOptions(u *unit) {
	options, err := socketsOptions(u.conf)
	if err != nil {
		s.log.Warn("socket options", "unit", u.conf.Name, "err", err)
	}
	for _, k := range u.sockets {
		if k.options = options[k.name]; k.options == nil {
			k.options = &sys.Options{}
		}
	}
}

// openAll binds what is missing. On a fresh start nothing may be; later, what
// cannot be bound is said, and the rest goes on.
func (s *Supervisor) openAll(fresh bool) error {
	var problems []error
	var bindings []*binding
	for _, u := range s.sorted() {
		if u.removed {
			continue
		}
		b, err := s.bind(u, u.conf, u.instances(), nil)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		gone, err := s.commitBinding(b)
		if err != nil {
			return err
		}
		s.release(gone)
		u.released()
		b.leaving = nil
		b.before = slices.DeleteFunc(slices.Clone(b.before), func(k *socket) bool { return slices.Contains(gone, k) })
		bindings = append(bindings, b)
	}
	if err := s.settleBindings(bindings...); err != nil {
		problems = append(problems, err)
	}
	if len(problems) > 0 && !fresh {
		s.log.Error("sockets not bound", "err", errors.Join(problems...))
		return nil
	}
	return errors.Join(problems...)
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
	held = s.orphans.outlived(u, held)
	if u.begun || len(held) > 0 {
		if u.begun = true; !u.recalled { // it could not be read: take over what runs
			u.machine.Up = true
		}
		s.commit(u, u.machine.Recover(s.now(), held))
		spec := s.spec(u)
		spec.Instances = u.instances()
		if u.removed {
			s.handle(u, machine.Stop{})
		} else if spec != u.machine.Spec {
			s.handle(u, machine.Respec{Spec: spec, Scaled: u.machine.Scaled})
		}
	} else {
		s.start(u)
	}
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
