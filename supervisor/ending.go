package supervisor

import (
	"encoding/json"
	"slices"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
)

// ifEnded ends the supervisor when an essential unit has ended for good, and
// forgets a unit that configuration has removed and that has nothing left.
func (s *Supervisor) ifEnded(u *unit) {
	if s.safe() != "" { // then nothing is decided
		return
	}
	if sv := u.conf.Service; sv != nil && sv.Essential && !s.stopping && u.machine.EndedForGood() {
		s.ended = &ExitError{Unit: u.conf.Name, Code: u.exitCode()}
		s.log.Warn("essential unit ended", "unit", u.conf.Name, "code", s.ended.Code)
		s.stopAll("essential unit " + u.conf.Name + " has ended")
	}
	if u.gone() {
		s.parting = append(s.parting, u)
	}
}

// An endCode is what an instance's last run ended with of those that nobody had asked to.
type endCode struct {
	Code int             // as shells have it: 128 and the signal, 127 of one that could not be started
	At   machine.Instant // when that was heard; 0: it is not known
}

// noteCode notes what a run has ended with, unless it was told to leave. One that the
// machine has no more was noted before a crash.
func (s *Supervisor) noteCode(r *run, code int) {
	if m := r.unit.machineRun(r.id); m != nil && !m.Asked {
		r.unit.codes[r.id.Instance-1] = endCode{code, s.now()}
	}
}

// exitCode is what a unit that has ended for good has ended with: that of the instance
// which failed first, and 0 only if all have ended well.
func (u *unit) exitCode() int {
	var first endCode
	for i := range u.machine.Instances {
		if c := u.codes[i]; c.Code != 0 && (first.Code == 0 || c.At < first.At) {
			first = c
		}
	}
	return first.Code
}

// forgetGone forgets units that have gone, once all news of them is acknowledged: until
// then another supervisor must know them.
func (s *Supervisor) forgetGone() {
	if len(s.parting) == 0 {
		return
	}
	grouped, passOn := false, s.heirs()
	for _, u := range s.parting {
		if u.gone() && s.units[u.conf.Name] == u {
			grouped = slices.ContainsFunc(u.sockets, func(k *socket) bool { return k.options != nil && k.options.ReusePort }) || grouped
			s.forget(u, passOn)
		}
	}
	s.parting = nil
	if grouped { // who was in a group with one of them may have that to himself now
		s.steerAll(keeper.Inventory{})
		for _, u := range s.sorted() {
			s.refit(u)
		}
	}
}

// forget parts from a removed unit of which nothing is left.
func (s *Supervisor) forget(u *unit, passOn func(*socket) bool) {
	s.closeGroups(u)
	gone := u.sockets
	u.setSockets(nil)
	s.releaseUnless(passOn, gone)
	u.canary = nil // nobody need watch it
	s.dropStore(u, "the unit was removed")
	s.agenda.set(u, 0, false)
	s.unsave(u)
	delete(s.units, u.conf.Name)
	s.stale = true
	s.log.Info("removed", "unit", u.conf.Name)
}

// endingState is the name of the saved wish that everything ends.
const endingState = "ending/"

// An ending says why everything ends: after a crash it goes on ending.
type ending struct {
	Because string
	Unit    string `json:",omitempty"` // of an essential unit that has ended …
	Code    int    `json:",omitempty"` // … its exit code
}

func (s *Supervisor) saveEnding(because string) {
	e := ending{Because: because}
	if s.ended != nil {
		e.Unit, e.Code = s.ended.Unit, s.ended.Code
	}
	state, err := json.Marshal(e)
	if err == nil {
		err = s.keeper.Save(endingState, state)
	}
	if err != nil {
		s.log.Error("not saved that everything ends", "err", err)
	}
}

// forgetEnding forgets that all has ended. Where the keeper ends too it must not be:
// until it does, another supervisor may come.
func (s *Supervisor) forgetEnding() {
	if s.cfg.Keeper == nil {
		s.keeper.Save(followedState, nil)
		s.keeper.Save(endingState, nil)
	}
}

// goOnEnding stops everything if a supervisor before us was about to.
func (s *Supervisor) goOnEnding(inv keeper.Inventory) {
	state, ok := inv.States[endingState]
	if !ok {
		return
	}
	var e ending
	if err := json.Unmarshal(state, &e); err != nil {
		e.Because = err.Error()
	}
	if e.Unit != "" {
		s.ended = &ExitError{e.Unit, e.Code}
	}
	s.stopAll(e.Because)
}
