package supervisor

import (
	"time"

	"golang.org/x/sys/unix"
)

// The end of everything in safe mode: every run is told to leave, and parted from when it
// has, as in ordinary life but without a machine.

// endSafe tells every run to leave, as its unit says. Whose stop timeout has passed comes
// through overdue.
func (s *Supervisor) endSafe(because string, overdue chan<- *unit) {
	s.stopping = true
	s.log.Info("stopping", "because", because)
	s.outer("STOPPING=1")
	for _, u := range s.sorted() {
		running := false
		for _, r := range u.runs {
			switch {
			case r.exited: // only its output is left
			case u.ends[r.id.Gen] != nil:
				s.partSafe(r)
			default:
				running, u.told = true, true
				s.signal(u, r.id, u.stopSignal)
			}
		}
		if sv := u.conf.Service; running && sv != nil && sv.StopTimeout > 0 {
			time.AfterFunc(sv.StopTimeout, func() {
				select {
				case overdue <- u:
				case <-s.quit:
				}
			})
		}
	}
}

// killSafe kills what is left of a unit.
func (s *Supervisor) killSafe(u *unit, because string) {
	for _, r := range u.runs {
		if u.ends[r.id.Gen] == nil && !r.exited {
			s.tell(Event{Unit: u.conf.Name, Instance: r.id.Instance, Gen: r.id.Gen, Pid: r.pid, What: "killing", Because: because})
			s.signal(u, r.id, unix.SIGKILL)
		}
	}
	s.tellAll()
}

// partSafe makes the one record of a run's end and parts from it: the record goes with the
// acknowledgement, as ever.
func (s *Supervisor) partSafe(r *run) {
	s.cfg.Keeper.remote.Gather()
	defer s.cfg.Keeper.remote.Scatter()
	end := r.unit.ends[r.id.Gen]
	e := Event{Unit: r.id.Unit, Instance: r.id.Instance, Gen: r.id.Gen, Pid: end.news.Pid, What: "exited", Because: end.because, Exit: end.exit}
	if end.exit == nil {
		e.What = "not started"
	}
	s.tell(e)
	s.letGo(r)
	s.tellAll()
	if err := s.keeper.Acknowledge(end.news); err != nil {
		s.log.Error("not acknowledged", "run", r.id.String(), "err", err)
	}
	for _, key := range s.unfinished {
		s.logs.finish(key)
	}
	s.unfinished = s.unfinished[:0]
}
