package supervisor

import (
	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/sys"
)

// News that waits together is decided on one after the other, and then saved once, acted
// upon, told and acknowledged, in that order: a unit of a thousand instances is not saved
// for each of them. What is saved is what the last decision has made of the unit, so it
// intends whatever any of them wants done; and nothing was acknowledged before.

// A decision is what is to be done about one piece of news.
type decision struct {
	unit    *unit // nil: nothing is to be done
	actions []machine.Action
	saved   bool          // it is what was saved: it need not be saved again
	told    []Event       // what people are told of it
	news    *keeper.Event // what is acknowledged to the keeper then; nil: nothing
	message *run          // whose message is taken out of its notify socket then; nil: nobody's
	brought int           // how many descriptors came with it
}

// mostTogether bounds how many pieces of news are decided on together: the control socket
// waits meanwhile, and what they are acknowledged with is to fit into one message.
const mostTogether = 128

// behind returns the news and what else waits behind it.
func behind[T any](first T, more <-chan T) []T {
	all := []T{first}
	for len(all) < mostTogether {
		select {
		case next := <-more:
			all = append(all, next)
		default:
			return all
		}
	}
	return all
}

// hearWaiting hears who has spoken already, before somebody's patience ends: of a thousand
// that start at once the last is not late because others were heard first.
func (s *Supervisor) hearWaiting() {
	for range 16 { // others wait too
		select {
		case ev := <-s.keeper.Events():
			s.hear(behind(ev, s.keeper.Events())...)
		case keys := <-s.fired:
			s.readable(keys)
		default:
			return
		}
	}
}

// decide has the unit's machine decide, now. What was told since mark belongs to it.
func (s *Supervisor) decide(u *unit, mark int, ev machine.Event) *decision {
	now := s.now()
	if at, ok := u.machine.Deadline(); ok && now > at.Add(oversleep) {
		u.machine.Overslept(now) // who has spoken meanwhile is not judged before he is heard
	}
	d := &decision{unit: u, actions: u.machine.Step(now, ev)}
	s.tellWith(d, mark)
	return d
}

// tellWith has what was told since mark wait for the decision.
func (s *Supervisor) tellWith(d *decision, mark int) {
	d.told = append(d.told, s.untold[mark:]...)
	s.untold = s.untold[:mark]
}

// settle carries decisions out, each unit's together, and then tells and acknowledges
// one after the other.
func (s *Supervisor) settle(all []*decision) {
	of := map[*unit][]*decision{}
	var units []*unit // in the order of the news
	for _, d := range all {
		if d.unit != nil && of[d.unit] == nil {
			units = append(units, d.unit)
		}
		of[d.unit] = append(of[d.unit], d)
	}
	for _, u := range units {
		s.carryOut(u, of[u]...)
	}
	s.cork() // the acknowledgements arrive together
	for i, d := range all {
		s.gather(d)
		s.untold = append(s.untold, d.told...)
		s.tellAll()
		if i == len(all)-1 {
			for _, u := range units {
				s.ifEnded(u)
			}
			s.settleFollowing()
		}
		s.acknowledge(d)
	}
	s.uncork()
	for _, d := range all {
		if d.message != nil {
			d.message.takeMessage()
		}
	}
}

// gather has what is logged from now on go with the acknowledgement.
func (s *Supervisor) gather(d *decision) {
	if s.cfg.Keeper != nil && d.news != nil {
		s.cfg.Keeper.remote.Gather()
	}
}

func (s *Supervisor) acknowledge(d *decision) {
	if ev := d.news; ev != nil {
		if err := s.keeper.Acknowledge(*ev); err != nil {
			s.log.Error("not acknowledged", "unit", ev.ID.Unit, "instance", ev.ID.Instance, "generation", ev.ID.Gen, "err", err)
		}
	}
}

// takeMessage takes the message that was looked at out of the run's notify socket.
func (r *run) takeMessage() {
	if r.notify >= 0 {
		passing("notification handled")
		sys.ReadNotify(r.notify, false)
		passing("notification taken")
	}
}

// carryOut saves what was decided for a unit, acts on it, and shows it.
func (s *Supervisor) carryOut(u *unit, all ...*decision) {
	u.resize()
	steps := make([][]machine.Action, len(all))
	for i, d := range all {
		u.changed(d.actions)
		steps[i] = d.actions
	}
	s.cork()
	if len(all) > 1 || !all[0].saved {
		if err := s.save(u); err != nil { // save
			s.log.Error("not saved", "unit", u.conf.Name, "err", err)
		}
	}
	s.point(u)
	machine.Thin(steps)
	for i, d := range all { // act
		mark := len(s.untold)
		for _, a := range steps[i] {
			s.perform(u, a)
		}
		s.tellWith(d, mark)
	}
	s.uncork()
	s.settleLooks(u)
	s.settleStore(u)
	s.settleGates(u)
	s.trim(u)
	s.settleCanary(u)
	at, ok := u.machine.Deadline()
	s.agenda.set(u, at, ok)
	s.publish(u) // tell: who hears of it and asks finds it so
}
