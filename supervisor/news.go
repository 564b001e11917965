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
func (s *Supervisor) hear(ev keeper.Event) {
	if s.cfg.Keeper != nil {
		s.cfg.Keeper.remote.Gather()
		defer s.cfg.Keeper.remote.Scatter()
	}
	s.heard(ev)
}

// heard takes news from the keeper, and acknowledges it last.
func (s *Supervisor) heard(ev keeper.Event) {
	if isCheck(ev.ID) {
		s.checkNews(ev)
	} else if s.afterCheck(ev) {
		return
	} else if u := s.units[ev.ID.Unit]; u != nil {
		if r := u.run(ev.ID); r != nil && !r.exited {
			s.runNews(u, r, ev)
		}
	}
	s.settleFollowing()
	if err := s.keeper.Acknowledge(ev); err != nil {
		s.log.Error("not acknowledged", "unit", ev.ID.Unit, "instance", ev.ID.Instance, "generation", ev.ID.Gen, "err", err)
	}
	if ev.Kind == keeper.Execed {
		s.prepareOutfit()
	}
}

func (s *Supervisor) runNews(u *unit, r *run, ev keeper.Event) {
	switch ev.Kind {
	case keeper.Execed:
		r.pid = ev.Pid
		if err := s.watchNotify(r); err != nil {
			s.log.Error("not watched", "unit", ev.ID.Unit, "instance", ev.ID.Instance, "generation", ev.ID.Gen, "err", err)
		}
		s.handle(u, machine.Execed{Instance: ev.ID.Instance, Gen: ev.ID.Gen})
	case keeper.SpawnFailed:
		s.handle(u, s.spawnFailed(r, ev.Stage, u.explain(ev, r.user)))
	case keeper.Exited:
		s.notifications(r, 1<<10) // last words come before the exit
		s.cork()                  // until what follows from it has been committed
		s.handle(u, s.exited(u, r, ev))
	}
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
	u.lastCode = code
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
	s.canaryExit(u, r, st.String())
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

// readable takes a watch key: a socket has a caller, or a run has spoken.
func (s *Supervisor) readable(key uint64) {
	t, ok := s.targets[key]
	switch {
	case !ok:
	case t.socket != nil:
		s.called(t.unit, t.socket)
	case t.stored != nil:
		s.hungup(t.unit, t.stored)
	case t.run != nil && !t.run.exited:
		s.notifications(t.run, 64)
		if t.run.notify >= 0 {
			s.watch.Arm(t.run.notify, key)
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
	if s.flushedCaller(u, k.instance) {
		return
	}
	s.unwatch(u, k.instance) // its other sockets need not be heard of
	s.handle(u, machine.Connected{Instance: k.instance})
}

// notifications reads up to budget messages of a run. Each is looked at, handled
// and saved, and only then taken out of the socket.
func (s *Supervisor) notifications(r *run, budget int) {
	for ; budget > 0 && r.notify >= 0; budget-- {
		m, fds, err := sys.PeekNotify(r.notify)
		if err != nil {
			if !errors.Is(err, unix.EAGAIN) {
				s.log.Error("notify socket", "unit", r.id.Unit, "instance", r.id.Instance, "generation", r.id.Gen, "err", err)
			}
			return
		}
		s.notification(r, m, fds)
		if r.notify >= 0 {
			passing("notification handled")
			sys.ReadNotify(r.notify, false)
			passing("notification taken")
		}
	}
}

// notification does what a message says. The descriptors are its own.
func (s *Supervisor) notification(r *run, m sys.Message, fds []int) {
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
		return
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
		return
	}
	if ev.Reloading {
		s.tell(Event{Unit: u.conf.Name, Instance: r.id.Instance, Gen: r.id.Gen, Pid: r.pid, What: "reloading"})
	}
	s.handle(u, ev)
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
