package supervisor

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
	"golang.org/x/sys/unix"
)

// resume takes up the runs the keeper lists, lets the machine square them with
// what was saved, and replays the news that nobody has acknowledged.
func (s *Supervisor) resume(u *unit, children []keeper.Child, inv keeper.Inventory) {
	var held []machine.Held
	var pending []keeper.Event
	for _, c := range children {
		if err := s.adopt(u, c, inv); err != nil {
			s.log.Error("run not adopted", "unit", u.conf.Name, "instance", c.ID.Instance, "generation", c.ID.Gen, "err", err)
		}
		held = append(held, machine.Held{Instance: c.ID.Instance, Gen: c.ID.Gen, Running: c.Running, Ended: ended(c), Signal: u.toldToLeave(c.Last)})
		pending = append(pending, c.Pending...)
	}
	if !u.begun && len(held) > 0 { // its state could not be read: take over what runs
		u.begun, u.machine.Up = true, true
	}
	if u.begun {
		before := u.machine.Clone()
		d := &decision{unit: u, actions: u.machine.Recover(s.now(), held)}
		d.saved = u.savedAsIs(children) && u.machine.Same(before)
		s.carryOutAndTell(d)
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
	s.bringAll(u)
	s.goOnCanary(u)
	s.hear(pending...)
}

// savedAsIs says that what was saved of the unit is what it is, but for its machine: it was
// read, and so was what is known of its runs.
func (u *unit) savedAsIs(children []keeper.Child) bool {
	return u.before != nil && u.savedSockets != nil && u.savedConf == u.conf && !slices.ContainsFunc(children, func(c keeper.Child) bool {
		_, known := u.facts[c.ID.Gen]
		return !known
	})
}

// toldToLeave is the last signal a run was sent, if that was to make it leave; else 0.
// The reload signal is for those that stay.
func (u *unit) toldToLeave(last unix.Signal) int {
	if sv := u.conf.Service; sv != nil && last == sv.ReloadSignal && last != u.stopSignal && last != unix.SIGKILL {
		return 0
	}
	return int(last)
}

// ended says whether the news of a run's end is to come.
func ended(c keeper.Child) bool {
	return slices.ContainsFunc(c.Pending, func(ev keeper.Event) bool { return ev.Kind != keeper.Execed })
}

// adopt takes up a run that was started before this supervisor began.
func (s *Supervisor) adopt(u *unit, c keeper.Child, inv keeper.Inventory) (err error) {
	r := &run{id: c.ID, unit: u, pid: c.Pid, asked: time.Now(), notify: -1, log: -1, logDone: true}
	if f, ok := u.facts[c.ID.Gen]; ok {
		r.asked, r.ready, r.status, r.errno, r.seat = f.Asked, f.Ready, f.Status, f.Errno, f.Seat
	} else {
		r.seat = u.seatOfOrphan(c)
		u.countStart(c.ID)
	}
	r.user = u.userOf(c.ID.Gen)
	u.runs[c.ID.Gen] = r
	s.issue(u, r, c.ID.Gen)
	s.live++
	s.processes++
	if fd, ok := inv.Descriptors[r.held("gate")]; ok {
		r.door = fd
	}
	if fd, ok := inv.Descriptors[r.held("notify")]; ok {
		r.notify = fd
		if c.Running { // else from the news of exec on
			err = s.watchNotify(r)
		}
	}
	if fd, ok := inv.Descriptors[r.held("log")]; ok {
		r.log, r.logDone, r.rest = fd, false, inv.States[restState+c.ID.String()]
		err = errors.Join(err, s.readLog(r))
	}
	return err
}

// countStart counts a run of which it was not saved that it had been started. Where even its
// end was, its start was too, and what was known of it forgotten.
func (u *unit) countStart(id keeper.ID) {
	if i := id.Instance - 1; i < len(u.starts) && u.lastExit[i].Gen < id.Gen {
		u.starts[i]++
	}
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
	if !ok {
		return id, false
	}
	unit, rest, _ := strings.Cut(rest, "@")
	instance, gen, _ := strings.Cut(rest, ".")
	var wrong, alsoWrong error
	id.Unit = unit
	id.Instance, wrong = strconv.Atoi(instance)
	id.Gen, alsoWrong = strconv.ParseUint(gen, 10, 64)
	return id, wrong == nil && alsoWrong == nil
}

// dropStrangers closes descriptors that belong to nothing any more, and ends runs
// whose unit left no saved state.
func (s *Supervisor) dropStrangers(inv keeper.Inventory) {
	known := make(map[string]bool, len(inv.Descriptors))
	for _, name := range []string{"control", lockHeld, takenHeld[0], takenHeld[1], madeHeld[0], madeHeld[1], keeper.RecordHeld, doorHeld, pathsHeld} {
		known[name] = true
	}
	for _, l := range s.left {
		known[l.held] = true
	}
	for _, u := range s.units {
		for _, k := range slices.Concat(u.sockets, u.leaving) {
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
		if s.units[c.ID.Unit] == nil && !isCheck(c.ID) && !ended(c) {
			s.log.Warn("unknown run ended", "unit", c.ID.Unit, "instance", c.ID.Instance, "generation", c.ID.Gen, "pid", c.Pid)
			s.keeper.Signal(c.ID, unix.SIGKILL)
		}
	}
}
