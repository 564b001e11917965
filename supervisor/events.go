package supervisor

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sockd/sockd/supervisor/internal/machine"
)

// An Event is one thing that happened, for people and programs: one line in the
// log, one object in GET /v1/events.
type Event struct {
	Time     time.Time   `json:"time"`
	Unit     string      `json:"unit"`
	Instance int         `json:"instance,omitempty"`
	Gen      uint64      `json:"generation,omitempty"`
	Pid      int         `json:"pid,omitempty"`
	What     string      `json:"event"`             // the new state, "exited", "not started", "killing", "reloading"
	From     string      `json:"from,omitempty"`    // the state before
	Because  string      `json:"because,omitempty"` // what brought it about
	For      string      `json:"for,omitempty"`     // backoff: how long it lasts
	After    string      `json:"after,omitempty"`   // ready: how long it took since the start
	Exit     *ExitStatus `json:"exit,omitempty"`
}

// An ExitStatus is the record of one process's end. There is one for each process
// that was started.
type ExitStatus struct {
	Time   time.Time `json:"time"`
	Gen    uint64    `json:"generation"`
	Pid    int       `json:"pid"`
	Code   int       `json:"code"`             // exit code; 0 when a signal ended it
	Signal string    `json:"signal,omitempty"` // SIGKILL; "" when it exited
	Cause  string    `json:"cause"`            // "by itself", or why sockd told it to leave
	Killed int       `json:"killed,omitempty"` // other processes of the run that had to be killed
}

// changed notes since when instances are as they are now.
func (u *unit) changed(actions []machine.Action) {
	for _, a := range actions {
		if r, ok := a.(machine.Report); ok && r.Instance >= 1 && r.Instance <= len(u.since) && r.From != r.To {
			u.since[r.Instance-1] = time.Now()
		}
	}
}

// report turns a machine's report into an event.
func (s *Supervisor) report(u *unit, a machine.Report) {
	u.resize()
	e := Event{Unit: u.conf.Name, Instance: a.Instance, Gen: a.Gen, What: string(a.To), From: string(a.From), Because: a.Because}
	if a.For > 0 {
		e.For = a.For.Round(time.Millisecond).String()
	}
	if r := u.runs[a.Gen]; r != nil && a.Gen != 0 {
		e.Pid = r.pid
		if a.To == machine.IsReady && r.ready.IsZero() {
			r.ready = time.Now().Add(-s.readyFor(u, a))
			if took := r.ready.Sub(r.asked); took >= 0 { // else nobody knows: it was ready when it was adopted
				e.After = took.Round(100 * time.Microsecond).String()
			}
		}
	}
	s.tell(e)
}

// readyFor is how long a run has been ready: one that replaces another is reported on when
// it relieves that.
func (s *Supervisor) readyFor(u *unit, a machine.Report) time.Duration {
	if a.Instance < 1 || a.Instance > len(u.machine.Instances) {
		return 0
	}
	for _, run := range u.machine.Instances[a.Instance-1].Runs {
		if run.Gen == a.Gen && run.ReadyAt != 0 {
			return max(0, time.Duration(s.now()-run.ReadyAt))
		}
	}
	return 0
}

// tell notes an event, to be told when the status shows what it brings about.
func (s *Supervisor) tell(e Event) {
	e.Time = time.Now()
	s.untold = append(s.untold, e)
}

func (s *Supervisor) tellAll() {
	for _, e := range s.untold {
		passing("tell")
		s.tellNow(e)
		passing("told")
	}
	s.untold = s.untold[:0]
}

// tellNow writes an event to the log and to those who follow the events.
func (s *Supervisor) tellNow(e Event) {
	s.events.add(e)
	level := slog.LevelInfo
	switch e.What {
	case string(machine.Backoff), string(machine.EndedFailed), "not started", "killing":
		level = slog.LevelWarn
	case "exited":
		if e.Exit.Cause == "by itself" && (e.Exit.Code != 0 || e.Exit.Signal != "") {
			level = slog.LevelWarn
		}
	}
	if !s.log.Enabled(context.Background(), level) {
		return
	}
	attrs := append(make([]slog.Attr, 0, 10), slog.String("unit", e.Unit))
	add := func(ok bool, a slog.Attr) {
		if ok {
			attrs = append(attrs, a)
		}
	}
	add(e.Instance > 0, slog.Int("instance", e.Instance))
	add(e.Gen > 0, slog.Uint64("generation", e.Gen))
	add(e.Pid > 0, slog.Int("pid", e.Pid))
	add(e.Because != "", slog.String("because", e.Because))
	add(e.For != "", slog.String("for", e.For))
	add(e.After != "", slog.String("after", e.After))
	if e.Exit != nil {
		add(true, slog.String("cause", e.Exit.Cause))
		add(e.Exit.Killed > 0, slog.Int("killed", e.Exit.Killed))
	}
	s.log.LogAttrs(context.Background(), level, e.What, attrs...)
}

// eventLogSize is how many events are kept for those who ask later, or read slowly: of a
// thousand services that start and end at once there are all.
const eventLogSize = 4096

// An eventLog keeps the last events. A follower that falls behind by more than are kept
// loses events, and is told how many.
type eventLog struct {
	mu        sync.Mutex
	ring      []Event
	most      int // how long the ring may be
	added     int // events ever; the next one goes to this place of the ring
	followers map[*follower]bool
}

// A follower has taken all events up to one, and hears of more.
type follower struct {
	more chan struct{} // has something in it when there may be more
	next int           // guarded by the log's mutex
}

func newEventLog() *eventLog { return &eventLog{most: eventLogSize, followers: map[*follower]bool{}} }

func (l *eventLog) add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ring) < l.most {
		l.ring = append(l.ring, e)
	} else {
		l.ring[l.added%l.most] = e
	}
	l.added++
	for f := range l.followers {
		select {
		case f.more <- struct{}{}:
		default: // he will come anyway
		}
	}
}

// past returns the kept events, oldest first.
func (l *eventLog) past() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.since(l.added - len(l.ring))
}

// since returns the events from number first on, which are kept.
func (l *eventLog) since(first int) []Event {
	events := make([]Event, 0, l.added-first)
	for n := first; n < l.added; n++ {
		events = append(events, l.ring[n%l.most])
	}
	return events
}

// follow returns a follower that has taken none of the kept events yet.
func (l *eventLog) follow() *follower {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := &follower{more: make(chan struct{}, 1), next: l.added - len(l.ring)}
	f.more <- struct{}{}
	l.followers[f] = true
	return f
}

func (l *eventLog) unfollow(f *follower) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.followers, f)
}

// take returns the events that f has not taken, and how many he has missed before them.
func (l *eventLog) take(f *follower) (events []Event, lost int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := max(f.next, l.added-len(l.ring))
	events, lost = l.since(first), first-f.next
	f.next = l.added
	return events, lost
}
