package supervisor

import (
	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
)

// Each orphan that ends before it is adopted has its one exit record too. The killed
// keeper's record is told as well, for it stays where this start fails.

// orphanCause is why an orphan ended that was told to.
const orphanCause = "orphan ended"

// orphanEnded makes the record of an orphan's end and acknowledges it; if we die before,
// the next supervisor does.
func (s *Supervisor) orphanEnded(o *orphans, ev keeper.Event, cause string) {
	if s.cfg.Keeper != nil {
		s.cfg.Keeper.remote.Gather()
		defer s.cfg.Keeper.remote.Scatter()
	}
	e := Event{Unit: ev.ID.Unit, Instance: ev.ID.Instance, Gen: ev.ID.Gen, Pid: ev.Pid, What: "exited", Exit: exitOf(ev, cause)}
	e.Because = machine.Status{Code: ev.Code, Signal: ev.Signal, Core: ev.Core}.String()
	if ev.Code < 0 {
		e.Because = "nobody knows how: it had no keeper"
	}
	s.tell(e)
	s.tellAll()
	if err := o.record.End(o.dir, ev.ID); err != nil {
		s.log.Warn("end not on record", "run", ev.ID.String(), "err", err)
	}
	s.keeper.Acknowledge(ev)
}

// orphanHeard takes what a supervisor before us did not live to take of an orphan that it
// was ending.
func (s *Supervisor) orphanHeard(o *orphans, c keeper.Child) {
	for _, ev := range c.Pending {
		if ev.Kind == keeper.Exited {
			s.orphanEnded(o, ev, orphanCause)
		} else {
			s.keeper.Acknowledge(ev)
		}
	}
}

// orphanGone makes the record of a run that ended while it had no keeper.
func (s *Supervisor) orphanGone(o *orphans, r keeper.Survivor) {
	ev := keeper.Event{ID: r.ID, Kind: keeper.Exited, Pid: r.Process.Pid, Code: -1}
	if ev.Pid > 0 { // else it may never have begun
		s.orphanEnded(o, ev, "by itself")
	}
}
