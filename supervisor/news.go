package supervisor

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"golang.org/x/sys/unix"
)

// hear takes news. What is logged of it goes with the acknowledgement, so that each
// end is recorded once, whenever we die.
func (s *Supervisor) hear(news ...keeper.Event) {
	if s.cfg.Keeper != nil {
		s.cfg.Keeper.remote.Gather()
		defer s.cfg.Keeper.remote.Scatter()
	}
	s.heard(news...)
}

// heard takes news from the keeper, and acknowledges it last. Of an instance one piece is
// decided on at a time: people hear of both when a run has become ready and has ended.
func (s *Supervisor) heard(news ...keeper.Event) {
	var all []*decision
	of, execed := map[keeper.ID]bool{}, false
	for _, ev := range news {
		place := keeper.ID{Unit: ev.ID.Unit, Instance: ev.ID.Instance}
		if len(all) == mostTogether || of[place] || !s.plain(ev) {
			s.settle(all)
			all = nil
			clear(of)
		}
		if d := s.decideNews(ev); d != nil {
			d.news = &ev
			all, of[place] = append(all, d), true
		}
		execed = execed || ev.Kind == keeper.Execed
	}
	s.settle(all)
	if execed {
		s.prepareOutfit()
	}
}

// plain says whether news needs nothing to be done before it is decided on, but what
// is done for all news.
func (s *Supervisor) plain(ev keeper.Event) bool {
	u := s.units[ev.ID.Unit]
	if isCheck(ev.ID) || s.checks[checkID(ev.ID)] != nil || u != nil && u.canary != nil {
		return false
	}
	return ev.Kind != keeper.Exited || u == nil || !u.run(ev.ID).hasSpoken()
}

// hasSpoken says whether a message waits in the run's notify socket.
func (r *run) hasSpoken() bool {
	if r == nil || r.notify < 0 {
		return false
	}
	spoken, err := waiting(r.notify)
	return spoken || err != nil
}

// decideNews decides on one piece of news; nil: it must wait.
func (s *Supervisor) decideNews(ev keeper.Event) *decision {
	if isCheck(ev.ID) {
		s.checkNews(ev)
		return &decision{}
	}
	if s.afterCheck(ev) {
		return nil
	}
	u := s.units[ev.ID.Unit]
	if u == nil {
		return &decision{}
	}
	r := u.run(ev.ID)
	if r == nil || r.exited {
		return &decision{}
	}
	return s.runNews(u, r, ev)
}

func (s *Supervisor) runNews(u *unit, r *run, ev keeper.Event) *decision {
	switch ev.Kind {
	case keeper.Execed:
		r.pid = ev.Pid
		if err := s.watchNotify(r); err != nil {
			s.log.Error("not watched", "unit", ev.ID.Unit, "instance", ev.ID.Instance, "generation", ev.ID.Gen, "err", err)
		}
		return s.decide(u, len(s.untold), machine.Execed{Instance: ev.ID.Instance, Gen: ev.ID.Gen})
	case keeper.SpawnFailed:
		mark := len(s.untold)
		return s.decide(u, mark, s.spawnFailed(r, ev.Stage, u.explain(ev, r.user)))
	case keeper.Exited:
		if r.hasSpoken() {
			s.notifications(r, 1<<10) // last words come before the exit
		}
		s.cork() // until what follows from it has been committed
		mark := len(s.untold)
		return s.decide(u, mark, s.exited(u, r, ev))
	}
	return &decision{}
}

// explain is what a start failed with; of a user who could not be had also who was
// wanted, who we are, and what to do.
func (u *unit) explain(ev keeper.Event, wanted int) string {
	sv := u.conf.Service
	if ev.Stage != "user" || sv == nil {
		return ev.Err
	}
	who := fmt.Sprintf("uid %d", wanted)
	if sv.User != "" {
		who = fmt.Sprintf("%s (%s)", sv.User, who)
	}
	if sv.Group != "" {
		who += ", group " + sv.Group
	}
	return fmt.Sprintf("sockd runs as uid %d and cannot start a process as %s: %s (run sockd as root, or leave service.user and service.group out)",
		os.Getuid(), who, ev.Err)
}

// exited makes the one record of a process's end, and parts from the run.
func (s *Supervisor) exited(u *unit, r *run, ev keeper.Event) machine.Event {
	st := machine.Status{Code: ev.Code, Signal: ev.Signal, Core: ev.Core}
	cause := "by itself"
	if m := u.machineRun(r.id); m != nil && m.Because != "" {
		cause = m.Because
	}
	code := ev.Code
	if ev.Signal != 0 {
		code = 128 + ev.Signal
	}
	s.noteCode(r, code)
	exit := *exitOf(ev, cause)
	if i := r.id.Instance - 1; i < len(u.lastExit) {
		if last := u.lastExit[i]; last.Gen == exit.Gen { // saved before a crash, and not acknowledged
			exit = last
		} else {
			u.exits[i] = countExit(u.exits[i], exit.Code, exit.Signal)
		}
		u.lastExit[i] = exit
	}
	s.tell(Event{Unit: u.conf.Name, Instance: r.id.Instance, Gen: r.id.Gen, Pid: ev.Pid, What: "exited", Because: st.String(), Exit: &exit})
	for _, k := range u.socketsOf(r.id.Instance) {
		s.listenAgain(u, k)
		s.healPath(u, k, false, r.id.Gen)
	}
	because := st.String()
	if cause != "by itself" {
		because = cause + ": " + because
	}
	s.canaryExit(u, r, because)
	s.letGo(r)
	return machine.Exited{Instance: r.id.Instance, Gen: r.id.Gen, Status: st, Jitter: rand.Float64()}
}

func exitOf(ev keeper.Event, cause string) *ExitStatus {
	exit := &ExitStatus{Time: time.Now(), Gen: ev.ID.Gen, Pid: ev.Pid, Code: ev.Code, Cause: cause, Killed: ev.Killed}
	if ev.Signal != 0 {
		exit.Signal = sys.SignalName(unix.Signal(ev.Signal))
	}
	return exit
}

// forwardWatch carries watch keys to the loop.
func (s *Supervisor) forwardWatch() {
	for {
		keys := make([]uint64, 256)
		n, err := s.watch.Wait(keys)
		if err != nil {
			return
		}
		select {
		case s.fired <- keys[:n]:
		case <-s.quit:
			return
		}
	}
}

// readable takes watch keys: a socket has a caller, or a run has spoken. What several
// runs say first is decided on together.
func (s *Supervisor) readable(keys []uint64) {
	var all []*decision
	var spoken []*run
	for _, key := range keys {
		t, ok := s.targets[key]
		if ok && t.run != nil {
			if d := s.firstWord(t.run); d != nil {
				all = append(all, d)
			}
			spoken = append(spoken, t.run)
		}
		if len(all) == mostTogether || ok && t.run == nil {
			s.settle(all)
			all = nil
		}
		switch {
		case !ok:
		case t.socket != nil:
			s.called(t.unit, t.socket)
		case t.stored != nil:
			s.hungup(t.unit, t.stored)
		}
	}
	s.settle(all)
	for _, r := range spoken {
		s.notifications(r, turn)
		if r.notify >= 0 {
			s.watch.Arm(r.notify, r.notified)
		}
	}
	s.settleFollowing()
}

// called: somebody waits on a socket. A listener that is no longer one is cured
// first: epoll reports it too, and it has no caller.
func (s *Supervisor) called(u *unit, k *socket) {
	if s.listenAgain(u, k) {
		s.watchSocket(u, k)
		return
	}
	if s.flushedCaller(u, k) {
		return
	}
	s.unwatch(u, k.instance) // its other sockets need not be heard of
	s.handle(u, machine.Connected{Instance: k.instance})
}

// turn is how many messages of a run are heard, after its first, until others have their turn.
const turn = 63

// notifications reads up to budget messages of a run, and a descriptor counts as one: each
// that is to be stored is compared with all that are. Each message is looked at, handled
// and saved, and only then taken out of the socket.
func (s *Supervisor) notifications(r *run, budget int) {
	for budget > 0 {
		d := s.firstWord(r)
		if d == nil {
			return
		}
		s.settle([]*decision{d})
		budget -= 1 + d.brought
	}
}

// firstWord looks at the first message of a run and decides on it; nil: there is none.
func (s *Supervisor) firstWord(r *run) *decision {
	if r.notify < 0 {
		return nil
	}
	m, fds, err := sys.PeekNotify(r.notify)
	if err != nil {
		if !errors.Is(err, unix.EAGAIN) {
			s.log.Error("notify socket", "unit", r.id.Unit, "instance", r.id.Instance, "generation", r.id.Gen, "err", err)
		}
		return nil
	}
	d := s.notification(r, m, fds)
	d.message, d.brought = r, len(fds)
	return d
}

// notification does what a message says. The descriptors are its own.
func (s *Supervisor) notification(r *run, m sys.Message, fds []int) *decision {
	u := r.unit
	refuse := func(because string) {
		if r.refused++; r.refused > 16 && r.refused&(r.refused-1) != 0 {
			return // of many, the 32nd, 64th, 128th … are told
		}
		s.log.Warn("message refused", "unit", u.conf.Name, "instance", r.id.Instance, "generation", r.id.Gen, "from", m.Pid, "because", because, "so far", r.refused)
	}
	if !r.mayNotify(m) {
		sys.CloseAside(fds...)
		refuse("it came from another user")
		return &decision{}
	}
	if m.Refused != "" {
		refuse(m.Refused)
	}
	n := m.Fields
	if n.MainPID > 0 && n.MainPID != r.pid {
		if err := s.keeper.SetMain(r.id, n.MainPID); err != nil {
			refuse(err.Error())
		} else {
			s.log.Info("main process", "unit", u.conf.Name, "instance", r.id.Instance, "generation", r.id.Gen, "pid", n.MainPID, "was", r.pid)
			r.pid = n.MainPID
		}
	}
	if n.Status != nil {
		r.status = *n.Status
	}
	if n.Errno != nil {
		r.errno = *n.Errno
	}
	s.store(r, m, fds, refuse)
	ev := machine.Notified{
		Instance: r.id.Instance, Gen: r.id.Gen,
		Ready: n.Ready && !u.gated(r), Reloading: n.Reloading, Stopping: n.Stopping,
		Alive: n.Watchdog, Trip: n.Trigger, Extend: microseconds(n.ExtendTimeoutUsec),
	}
	if n.WatchdogUsec != nil {
		ev.Watchdog = microseconds(*n.WatchdogUsec)
	}
	if ev == (machine.Notified{Instance: ev.Instance, Gen: ev.Gen}) {
		s.publish(u) // status text or the store, at most
		return &decision{}
	}
	mark := len(s.untold)
	if ev.Reloading {
		s.tell(Event{Unit: u.conf.Name, Instance: r.id.Instance, Gen: r.id.Gen, Pid: r.pid, What: "reloading"})
	}
	return s.decide(u, mark, ev)
}

// microseconds is a span that a service named, at most what a Duration holds.
func microseconds(n uint64) time.Duration {
	return time.Duration(min(n, uint64(math.MaxInt64/time.Microsecond))) * time.Microsecond
}

// mayNotify: a message counts if the kernel vouches that it comes from the user
// the process was started as, from root, or from sockd's own user.
func (r *run) mayNotify(m sys.Message) bool {
	return m.UID == 0 || m.UID == os.Getuid() || m.UID == r.user
}

// userOf says whom a run that was started before this supervisor began was started as.
func (u *unit) userOf(gen uint64) int {
	if f := u.facts[gen]; f.User != nil {
		return *f.User
	}
	sv := u.conf.Service
	if sv == nil || sv.User == "" {
		return os.Getuid()
	}
	a, err := sys.LookupUser(sv.User) // of an orphan nothing is saved
	if err != nil && !errors.Is(err, sys.ErrNoEntry) {
		return os.Getuid()
	}
	return int(a.UID)
}
