package supervisor

import (
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"golang.org/x/sys/unix"
)

// perform does one action. Each may be done twice without harm.
func (s *Supervisor) perform(u *unit, a machine.Action) {
	switch a := a.(type) {
	case machine.Watch:
		s.watchFor(u, a.Instance)
	case machine.Unwatch:
		s.unwatch(u, a.Instance)
	case machine.Spawn:
		s.spawn(u, a.Instance, a.Gen)
	case machine.Terminate:
		sig := u.stopSignal
		if a.Abort {
			sig = unix.SIGABRT
		}
		id := keeper.ID{Unit: u.conf.Name, Instance: a.Instance, Gen: a.Gen}
		if a.Abort || !s.retire(u, id) {
			s.signal(u, id, sig)
		}
	case machine.Kill:
		s.tell(Event{Unit: u.conf.Name, Instance: a.Instance, Gen: a.Gen, Pid: u.pidOf(a.Gen), What: "killing",
			Because: "still there after the stop timeout of " + u.machine.Spec.StopTimeout.String()})
		s.signal(u, keeper.ID{Unit: u.conf.Name, Instance: a.Instance, Gen: a.Gen}, unix.SIGKILL)
	case machine.Steer:
		s.sendOff()
		s.setWeights(u, a.Weights)
	case machine.Flush:
		s.sendOff()
		s.flush(u, a.Instance)
	case machine.AwaitEmpty:
		s.awaitEmpty(u, a.Instance)
	case machine.Report:
		s.report(u, a)
	default:
		panic(fmt.Sprintf("supervisor: no such action %T", a))
	}
}

func (s *Supervisor) signal(u *unit, id keeper.ID, sig unix.Signal) {
	if r := u.run(id); r != nil && r.unread != nil { // it has no process yet
		s.unreadFailed(r, "they were not read in time")
		return
	}
	if err := s.keeper.Signal(id, sig); err != nil {
		s.log.Error("not signalled", "unit", u.conf.Name, "instance", id.Instance, "generation", id.Gen, "signal", sys.SignalName(sig), "err", err)
	}
}

// watchFor arms the sockets of an instance, or, for 0, the shared ones.
func (s *Supervisor) watchFor(u *unit, instance int) {
	for _, k := range u.sockets {
		if k.instance == instance {
			s.watchSocket(u, k)
		}
	}
}

func (s *Supervisor) watchSocket(u *unit, k *socket) {
	k.hear()
	if k.key == 0 {
		k.key = s.newKey(target{unit: u, socket: k})
	}
	if err := s.watch.Arm(k.fd, k.key); err != nil {
		s.log.Error("not watched", "unit", u.conf.Name, "socket", k.where(), "err", err)
		key := k.key
		s.tryAgain(func() bool {
			return k.key != key || !u.has(k) || !u.watches(k.instance) || s.watch.Arm(k.fd, key) == nil
		})
	}
}

func (s *Supervisor) unwatch(u *unit, instance int) {
	for _, k := range u.sockets {
		if k.instance == instance && k.key != 0 {
			s.watch.Disarm(k.fd)
		}
	}
}

func (s *Supervisor) newKey(t target) uint64 {
	s.lastKey++
	s.targets[s.lastKey] = t
	return s.lastKey
}

// spawn starts a run: its notify socket, its log pipe, and the process; before that
// its files are read, if it has any.
func (s *Supervisor) spawn(u *unit, instance int, gen uint64) {
	id := keeper.ID{Unit: u.conf.Name, Instance: instance, Gen: gen}
	if u.runs[gen] != nil {
		return // asked for before a crash, and started
	}
	r := &run{id: id, unit: u, asked: time.Now(), notify: -1, log: -1, seat: u.freeSeat(instance)}
	u.runs[gen] = r
	s.point(u) // where nobody was, what is new goes where it is
	s.live++
	s.processes++
	u.starts[instance-1]++
	if len(u.conf.Service.EnvironmentFiles) > 0 {
		s.readFiles(r)
		return
	}
	s.launchOrFail(r, nil)
}

// launchOrFail starts a run whose variables are known. A failure is news like any other.
func (s *Supervisor) launchOrFail(r *run, fromFiles []string) {
	if stage, err := s.launch(r.unit, r, fromFiles); err != nil {
		s.follow = append(s.follow, news{r.unit, s.spawnFailed(r, stage, err.Error())})
	}
}

// launch does the work of spawn and names the stage that failed.
func (s *Supervisor) launch(u *unit, r *run, fromFiles []string) (stage string, err error) {
	o, stage, err := s.takeOutfit()
	if err != nil {
		return stage, err
	}
	defer o.close()
	if err := s.openNotify(r, o); err != nil {
		return "notify", err
	}
	if err := s.openLog(r, o); err != nil {
		return "log", err
	}
	sockets := u.handed(r)
	stored := s.giveStored(u, r.id.Instance)
	if err := s.openDoor(r); err != nil {
		return "ready", err
	}
	p, err := u.process(r, o.address, sockets, stored, fromFiles)
	if err != nil {
		return "environment", err
	}
	p.Output = o.log[1]
	if r.user = os.Getuid(); p.Credential != nil {
		r.user = int(p.Credential.UID)
	}
	s.readySockets(u, sockets, r.id.Instance, r.id.Gen)
	s.issue(u, r, r.id.Gen)
	if err := s.keeper.Spawn(r.id, p); err != nil {
		return "spawn", err
	}
	r.logEnd, o.log[1] = o.log[1], -1
	return "", nil
}

// openNotify takes the run's notify socket. It is watched from the news of exec on:
// what a run says is told together with its pid.
func (s *Supervisor) openNotify(r *run, o *outfit) error {
	if err := s.keeper.Hold(r.held("notify"), o.notify); err != nil {
		return err
	}
	r.notify, o.notify = o.notify, -1
	return nil
}

// watchNotify begins to hear a run. Where that fails (epoll(7) may be full) it is tried
// again: what it says meanwhile waits in its notify socket.
func (s *Supervisor) watchNotify(r *run) error {
	if r.notified != 0 {
		return nil
	}
	r.notified = s.newKey(target{unit: r.unit, run: r})
	err := s.watch.Arm(r.notify, r.notified)
	if err != nil {
		s.tryAgain(func() bool { return r.notify < 0 || s.watch.Arm(r.notify, r.notified) == nil })
	}
	return err
}

// openLog takes the run's log pipe and hands the read end to the reader.
func (s *Supervisor) openLog(r *run, o *outfit) error {
	if err := s.keeper.Hold(r.held("log"), o.log[0]); err != nil {
		return err
	}
	r.log, o.log[0] = o.log[0], -1
	return s.readLog(r)
}

// readLog lets r's log be read. Where that fails nobody reads it.
func (s *Supervisor) readLog(r *run) error {
	r.logKey = s.newKey(target{unit: r.unit, run: r})
	err := s.logs.add(r.logKey, r.log, source{r.id.Unit, r.id.Instance, r.id.Gen}, r.rest)
	if err != nil {
		delete(s.targets, r.logKey)
		r.logDone = true // but its pipe stays open until it ends: it may write, and is not to die of that
	}
	return err
}

// held is the name of one of the run's descriptors: notify/web@2.7.
func (r *run) held(what string) string { return what + "/" + r.id.String() }

// spawnFailed says what stands in place of an exit, and lets the run go.
func (s *Supervisor) spawnFailed(r *run, stage, text string) machine.Event {
	because := stage + ": " + text
	s.tell(Event{Unit: r.id.Unit, Instance: r.id.Instance, Gen: r.id.Gen, What: "not started", Because: because})
	s.noteCode(r, 127)
	s.canaryExit(r.unit, r, because)
	s.letGo(r)
	return machine.SpawnFailed{Instance: r.id.Instance, Gen: r.id.Gen, Because: because, Jitter: rand.Float64()}
}

// letGo begins to part from a run that has ended: its notify socket is closed now,
// its log pipe when it has been read to the end.
func (s *Supervisor) letGo(r *run) {
	if r.exited {
		return
	}
	r.exited = true
	s.processes--
	if s.issue(r.unit, r, 0); r.unit.seated() && r.seat != r.unit.heads[r.id.Instance] {
		s.bringSoon(r.unit, r.id.Instance)
	}
	s.bringLeftsSoon()
	s.closeDoor(r)
	if r.notify >= 0 {
		s.watch.Remove(r.notify)
		delete(s.targets, r.notified)
		s.keeper.Release(r.held("notify"))
		r.notify = -1
	}
	switch {
	case r.log >= 0 && !r.logDone:
		s.unfinished = append(s.unfinished, r.logKey)
	case r.log >= 0:
		s.releaseLog(r)
	default:
		r.logDone = true
	}
	s.forgetRun(r)
}

// logDone: the run's log pipe has been read to its end.
func (s *Supervisor) logDone(key uint64) {
	t := s.targets[key]
	delete(s.targets, key)
	if t.run == nil {
		return
	}
	t.run.logDone = true
	s.releaseLog(t.run)
	s.forgetRun(t.run)
}

// releaseLog closes both ends of the run's log pipe.
func (s *Supervisor) releaseLog(r *run) {
	s.keeper.Release(r.held("log"))
	r.log = -1
	if r.logEnd > 0 {
		unix.Close(r.logEnd)
		r.logEnd = 0
	}
}

// forgetRun forgets a run of which nothing is left.
func (s *Supervisor) forgetRun(r *run) {
	if c := s.checks[r.id]; c != nil && c.run == r && r.exited && r.logDone {
		s.checkDone(c)
	}
	if r.exited && r.logDone && r.unit.runs[r.id.Gen] == r {
		delete(r.unit.runs, r.id.Gen)
		s.live--
		s.ifEnded(r.unit) // a unit of which nothing is left, not even output, is forgotten
	}
}
