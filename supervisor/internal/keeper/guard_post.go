package keeper

import (
	"slices"

	"golang.org/x/sys/unix"
)

// What a guard has to say to its supervisor goes one letter at a time. One that would
// have to wait, for a supervisor that does not read, is carried by a goroutine of its own,
// and the guard goes on hearing signals and losing patience. News that has not
// been written stays with the local keeper, orders stay with the guard.

// post sends a letter. Nothing more may be posted until what became of it has come
// through sent.
func (s *session) post(o op, pack func(*packer)) {
	s.busy = true
	if err := s.sayNow(o, pack); err != errWouldWait {
		s.sent <- err // has room: nothing else is under way
		return
	}
	go func() { s.sent <- s.say(o, nil, pack) }()
}

func (s *session) news(ev Event) {
	s.post(opNews, func(p *packer) { p.event(ev) })
}

func (s *session) outcome(o Outcome) {
	s.post(opOutcome, func(p *packer) { p.text(o.ID); p.text(o.Outcome); p.text(o.Because) })
}

func (s *session) order(sig unix.Signal) {
	s.ordered = true
	s.post(opOrder, func(p *packer) { p.number(int(sig)) })
}

// sent notes what has become of the letter: an order that was written waits no more.
func (g *guard) sent(s *session, err error) {
	if s.ordered && err == nil {
		g.waiting = g.waiting[1:]
	}
	s.busy, s.ordered = false, false
}

// written waits for the letter under way once the talk is over, which ends the writing.
func (g *guard) written(s *session) {
	if s.busy {
		g.sent(s, <-s.sent)
	}
}

// flush passes on what waits, once the supervisor has said hello: what has become of
// an upgrade, and signals.
func (g *guard) flush(s *session) {
	if s.busy || !s.hello.Load() {
		return
	}
	if g.told != s {
		g.told = s
		if g.ending && !slices.ContainsFunc(g.waiting, ends) { // the one before may not have come to it
			g.waiting = append(g.waiting, unix.SIGTERM)
		}
		if g.outcome.ID != "" {
			s.outcome(g.outcome)
			return
		}
	}
	if len(g.waiting) > 0 {
		s.order(g.waiting[0])
	}
}

// ends tells whether a signal is to end sockd.
func ends(sig unix.Signal) bool { return sig != unix.SIGHUP }
