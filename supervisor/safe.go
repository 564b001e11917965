package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
)

// Safe mode: supervisors have died again and again soon after their start, so this
// one shows what there is and decides nothing. Services run on, sockets stay open, and
// what services write is carried on: one whose pipe is full would stop. No machine
// takes a step here, for one of them may be what supervisors die of.

// errSafe answers every wish in safe mode.
func (s *Supervisor) errSafe() error {
	return fmt.Errorf("safe mode: %s", s.safeText())
}

// safeText says why there is safe mode, and what to do; "" if there is none.
func (s *Supervisor) safeText() string {
	if s.safe() == "" {
		return ""
	}
	output := ""
	if s.cfg.Keeper.spills {
		output = ", what services write is thrown away"
	}
	return fmt.Sprintf("services run on%s, and nothing is started, stopped or changed, since supervisors died again and again, the last of them %s; `kill -HUP %d` tries again, `sockd upgrade` with another version",
		output, s.safe(), s.pid())
}

// safe is why there is safe mode; "" if there is none.
func (s *Supervisor) safe() string {
	if s.cfg.Keeper == nil {
		return ""
	}
	return s.cfg.Keeper.safe
}

// show publishes the units as they were saved, with the processes the keeper lists.
func (s *Supervisor) show(inv keeper.Inventory) {
	s.log.Error("safe mode", "because", s.safe())
	children := childrenOf(inv)
	for _, u := range s.sorted() {
		u.ends = map[uint64]*end{}
		for _, c := range children[u.conf.Name] {
			r := &run{id: c.ID, unit: u, pid: c.Pid, asked: u.facts[c.ID.Gen].Asked, notify: -1, log: -1, logDone: true}
			u.runs[c.ID.Gen] = r
			s.live++
			s.processes++
			for _, ev := range c.Pending {
				r.noteEnd(ev)
			}
			if fd, ok := inv.Descriptors[r.held("notify")]; ok {
				s.hearWords(r, fd)
			}
		}
		s.publishSafe(u)
	}
	s.publishUnits()
}

// carry reads what services write, as any supervisor does, or throws it away.
func (s *Supervisor) carry(inv keeper.Inventory) {
	if s.cfg.Keeper.spills {
		var err error
		s.log.Error("output is thrown away", "because", "supervisors died in safe mode too")
		if s.spill, err = newSpill(s.keeper, inv); err != nil {
			s.log.Error("output waits", "err", err)
		}
		return
	}
	box, err := newOutbox(s.keeper, inv, s.cfg.Output, s.sendOff)
	if err != nil {
		s.log.Error("output waits", "err", err)
		return
	}
	box.failed = s.outputFailed
	s.logs.open(box)
	for _, u := range s.units {
		for _, r := range u.runs {
			fd, ok := inv.Descriptors[r.held("log")]
			if !ok {
				continue
			}
			r.log, r.logDone, r.rest = fd, false, inv.States[restState+r.id.String()]
			if err := s.readLog(r); err != nil {
				s.log.Error("log not read", "run", r.id.String(), "err", err)
			}
		}
	}
	s.adoptLogs(inv)
}

// An end is that of a run in safe mode.
type end struct {
	news    keeper.Event
	because string
	exit    *ExitStatus // nil: it was never started
}

// noteEnd keeps the news of a run's end and says whether it was that; nobody acts upon it yet.
func (r *run) noteEnd(ev keeper.Event) bool {
	if ev.Kind == keeper.Execed {
		r.pid = ev.Pid
		return false
	}
	e := &end{news: ev, because: ev.Stage + ": " + ev.Err}
	if ev.Kind == keeper.Exited {
		cause := "by itself"
		if r.unit.told {
			cause = "stop"
		}
		e.because, e.exit = machine.Status{Code: ev.Code, Signal: ev.Signal, Core: ev.Core}.String(), exitOf(ev, cause)
	}
	r.unit.ends[ev.ID.Gen] = e
	return true
}

// publishSafe shows a unit as it was saved, but for runs that have ended since.
func (s *Supervisor) publishSafe(u *unit) {
	st := s.statusOf(u)
	for i := range st.Instances {
		in := &st.Instances[i]
		live := []RunStatus{}
		for _, rs := range in.Runs {
			e := u.ends[rs.Gen]
			if e == nil {
				live = append(live, rs)
				continue
			}
			in.State, in.Because = string(machine.EndedFailed), e.because+"; no other is started in safe mode"
			if in.LastExit = e.exit; e.exit != nil {
				if in.Since = e.exit.Time; e.exit.Code == 0 && e.exit.Signal == "" {
					in.State = string(machine.EndedWell)
				}
			}
		}
		if in.Runs = live; len(live) > 0 {
			in.State = live[0].State
		}
	}
	st.State = Summary(st)
	u.published.Store(st)
	s.changes.ring()
}

// Again has the keeper start an ordinary supervisor once this process, which is in safe
// mode, has ended. Without it the next one is in safe mode too.
func (s *Supervisor) Again() error {
	return s.askSafe(context.Background(), func() error {
		s.spill.close()
		return s.cfg.Keeper.remote.Again()
	})
}

// answer is the loop of safe mode. It acknowledges no news until it is told to stop: then
// it ends every run.
func (s *Supervisor) answer(ctx context.Context) error {
	defer s.spill.close()
	done, overdue := ctx.Done(), make(chan *unit)
	var late <-chan time.Time // as in loop
	var progress int64
	for {
		if s.stopping && s.processes == 0 && late == nil {
			progress, late = s.logs.progress.Load(), outputLate()
		}
		if s.stopping && s.live == 0 {
			s.spilt()
			s.releaseAll()
			return fmt.Errorf("stopped in safe mode: %w", context.Cause(ctx))
		}
		select {
		case ev := <-s.keeper.Events():
			s.hearSafe(ev)
		case keys := <-s.fired:
			s.words(keys)
		case key := <-s.logs.done:
			s.logDone(key)
		case r := <-s.requests:
			if !r.safe {
				r.done <- s.errSafe()
				continue
			}
			r.done <- r.do()
			if s.crashed != nil {
				return s.crashed
			}
		case <-done:
			done = nil
			s.endSafe(context.Cause(ctx).Error(), overdue)
		case u := <-overdue:
			s.killSafe(u, "still there after the stop timeout of "+u.conf.Service.StopTimeout.String())
		case <-late:
			if late = nil; s.logs.progress.Load() == progress {
				s.log.Warn("output not written", "runs", s.live, "because", "nobody has taken it for "+outputPatience.String())
				s.live = 0
			}
		case <-s.cfg.Keeper.remote.Gone():
			s.crashed = errKeeperGone
			return s.crashed
		}
	}
}

// hearSafe shows what the news is of, and puts it on record if everything ends.
func (s *Supervisor) hearSafe(ev keeper.Event) {
	u := s.units[ev.ID.Unit]
	if u == nil || u.run(ev.ID) == nil {
		if s.stopping {
			s.keeper.Acknowledge(ev)
		}
		return
	}
	if r := u.run(ev.ID); r.noteEnd(ev) && s.stopping {
		s.partSafe(r)
	}
	s.publishSafe(u)
}
