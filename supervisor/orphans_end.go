package supervisor

import (
	"cmp"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"golang.org/x/sys/unix"
)

// endRest ends what a run has left whose main process is dead.
func (s *Supervisor) endRest(r keeper.Survivor) {
	killed := 0
	if leaf := r.Leaf.Open(); leaf != nil {
		if empty, err := leaf.Empty(); err == nil && !empty {
			pids, _ := leaf.Procs()
			killed = len(pids)
			leaf.KillAll()
		}
		leaf.Remove()
	} else if r.Mark != "" {
		var sweeper sys.Sweeper
		if err := sweeper.KillRest(sys.Mark{Env: r.Mark, Foreign: true}, func(int) { killed++ }); err != nil {
			s.log.Warn("leftovers", "unit", r.ID.Unit, "err", err)
		}
	}
	if killed > 0 {
		s.log.Warn("leftovers ended", "unit", r.ID.Unit, "instance", r.ID.Instance, "generation", r.ID.Gen, "processes", killed)
	}
}

// orphanGrace is how long orphans have to leave whose unit is not configured or sets no limit.
const orphanGrace = 10 * time.Second

// A leaving orphan has been asked to end, and then killed.
type leaving struct {
	by     time.Time
	killed bool
}

// stopOf says how a run is asked to end, and how long it may take. A unit whose file
// sets no limit is not waited for without end: sockd could not begin.
func (s *Supervisor) stopOf(id keeper.ID) (sig unix.Signal, grace time.Duration) {
	for _, u := range s.cfg.Units.Units {
		if u.Name == id.Unit && u.Service != nil {
			return u.Service.StopSignal, cmp.Or(u.Service.StopTimeout, orphanGrace)
		}
	}
	return unix.SIGTERM, orphanGrace
}

// endOrphans ends runs in good order. The keeper takes them over for that.
func (s *Supervisor) endOrphans(o *orphans, list []*orphan) {
	left := map[keeper.ID]*leaving{}
	for _, r := range list {
		if r.process != nil {
			r.process.Close()
			if err := s.keeper.Adopt(r.Survivor); err != nil {
				s.orphanGone(o, r.Survivor) // just now, by itself
				continue
			}
		}
		sig, grace := s.stopOf(r.ID)
		left[r.ID] = &leaving{by: time.Now().Add(grace)}
		s.keeper.Signal(r.ID, sig)
	}
	late := time.NewTimer(0)
	defer late.Stop()
	for len(left) > 0 {
		select {
		case ev := <-s.keeper.Events():
			if left[ev.ID] == nil {
				continue // of one that was adopted before a supervisor died: the inventory has it
			}
			if ev.Kind == keeper.Execed {
				s.keeper.Acknowledge(ev)
				continue
			}
			delete(left, ev.ID)
			s.orphanEnded(o, ev, orphanCause)
		case <-late.C:
			if next := s.killLate(left); len(left) > 0 {
				late.Reset(time.Until(next))
			}
		}
	}
}

// killLate kills those whose time is over, gives up on those that even that does not
// end, and says when to look again.
func (s *Supervisor) killLate(left map[keeper.ID]*leaving) (next time.Time) {
	for id, l := range left {
		if !time.Now().Before(l.by) {
			if l.killed {
				s.log.Error("orphan is stuck", "unit", id.Unit, "instance", id.Instance, "generation", id.Gen)
				delete(left, id)
				continue
			}
			s.keeper.Signal(id, unix.SIGKILL)
			l.by, l.killed = time.Now().Add(orphanGrace), true
		}
		if next.IsZero() || l.by.Before(next) {
			next = l.by
		}
	}
	return next
}
