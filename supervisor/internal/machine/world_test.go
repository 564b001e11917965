package machine

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// A world has a clock, a keeper, processes and callers, and one unit in it. It
// carries news to the unit and actions to the processes as a supervisor does,
// and an oracle watches.
type world struct {
	rng    *rand.Rand
	now    Instant
	u      *Unit
	up     bool // the wish that was acknowledged
	paused bool
	procs  []proc
	news   []Event    // from the keeper, not acknowledged, oldest first
	said   []Notified // on notify sockets, not consumed
	order  Event      // one that a client repeats, because it got no answer
	armed  [maxInstances + 1]bool
	q      queues
	storm  bool // crashes may happen
	oracle oracle

	trace                    []string // what has happened, if a replay wants to know
	tracing                  bool
	events, crashes, spawned int
	flushes, replaced        int
	arrived, together        int
	broken                   string // the first violation
}

const maxInstances = 4

// A proc is a run as it really is.
type proc struct {
	n    int
	gen  uint64
	born bool // the keeper has spawned it and lists it
	// What it does.
	execed, spoke, dead bool
	sig                 int
	stubborn            bool // ignores the stop signal
	// What the supervisor has decided and heard: the oracle's business.
	absorbed          bool // its end is known
	ready             bool
	readyAt, ping     Instant
	dog               time.Duration
	tripped, stopping bool
	told, killed      bool
	asked, forgiven   bool
	fault             Fault
	patient           Instant // not told by a timeout before
	mercy             Instant // not killed before; 0: not at all
}

func (p *proc) live() bool { return !p.absorbed && !p.told && !p.stopping }

func (w *world) proc(n int, gen uint64) *proc {
	for i := range w.procs {
		if p := &w.procs[i]; p.gen == gen && p.n == n {
			return p
		}
	}
	return nil
}

func (w *world) fail(format string, args ...any) {
	if w.broken == "" {
		w.broken = fmt.Sprintf(format, args...)
	}
}

func (w *world) log(format string, args ...any) {
	if w.tracing {
		w.trace = append(w.trace, fmt.Sprintf("%-14s ", "+"+time.Duration(w.now-birth).String())+fmt.Sprintf(format, args...))
	}
}

// hear is the supervisor's loop: decide, save, act, and the caller acknowledges if
// it returns true. One time in a hundred it dies on the way. News that waited together
// is decided on one after the other, and then saved once.
func (w *world) hear(evs ...Event) (acknowledge bool) {
	w.events += len(evs)
	if !w.storm || w.rng.IntN(100) > 0 {
		w.commit(w.decide(evs), -1)
		return true
	}
	if _, wish := wishOf(evs[0]); wish && w.rng.IntN(2) == 0 {
		w.order = evs[0]
	}
	text := w.save()
	switch w.rng.IntN(3) {
	case 0:
		w.log("crash before the save of %T", evs[0])
	case 1:
		actions := w.decide(evs)
		text = w.save()
		done := w.rng.IntN(len(actions) + 1)
		w.log("crash after %d of %d actions", done, len(actions))
		w.commit(actions, done)
	case 2:
		actions := w.decide(evs)
		text = w.save()
		w.commit(actions, -1)
		w.log("crash before the acknowledgement")
	}
	w.reborn(text)
	return false
}

func wishOf(ev Event) (Event, bool) {
	switch ev.(type) {
	case Start, Stop, Replace, Respec, Scale, Pause, Resume:
		return ev, true
	}
	return nil, false
}

func (w *world) decide(evs []Event) []Action {
	var steps [4][]Action
	queues, flushes := w.q, w.flushes
	for i, ev := range evs {
		if w.tracing {
			w.log("%#v", ev)
		}
		w.oracle.absorb(w, ev)
		steps[i] = w.u.Step(w.now, ev)
		w.oracle.judge(w, steps[i], false)
		if len(evs) == 1 {
			return steps[0]
		}
		for _, a := range steps[i] { // the next is judged as if this had been done
			switch a := a.(type) {
			case Steer:
				w.steered(a.Weights)
			case Flush:
				w.flushed(a.Instance)
			}
		}
	}
	decided := w.q.zero
	w.q, w.flushes, w.q.decided = queues, flushes, &decided
	w.together++
	Thin(steps[:])
	return slices.Concat(steps[:]...)
}

func (w *world) save() []byte {
	text, err := json.Marshal(w.u)
	if err != nil {
		w.fail("save: %v", err)
	}
	return text
}

func (w *world) load(text []byte) {
	w.u = new(Unit)
	if err := json.Unmarshal(text, w.u); err != nil {
		w.fail("load: %v", err)
	}
	if again := w.save(); string(again) != string(text) {
		w.fail("a snapshot does not round-trip:\n%s\n%s", text, again)
	}
}

// reborn leaves the supervisor dead for a while, in which the world goes on, and
// then starts another, which may die as well.
func (w *world) reborn(text []byte) {
	for again := true; again; {
		w.crashes++
		w.armed = [maxInstances + 1]bool{}
		for range w.rng.IntN(6) {
			w.pass(w.some(5 * time.Second))
			w.act()
		}
		again = w.rng.IntN(5) == 0
		done := -1
		if again {
			done = w.rng.IntN(4) // that many actions, and then it dies
		}
		w.load(text)
		if w.rng.IntN(20) == 0 { // an unreadable state
			w.log("the saved state is lost")
			w.u = New(w.u.Spec)
			w.u.Up, w.paused = w.up, false
			w.oracle.forget(w)
			for k := len(w.u.Instances) + 1; k <= maxInstances; k++ {
				w.q.waiting[k] = 0 // nobody knows of that place
			}
		}
		var held []Held
		for i := range w.procs {
			if p := &w.procs[i]; p.born {
				held = append(held, Held{Instance: p.n, Gen: p.gen, Running: p.execed && !p.dead, Ended: p.dead, Signal: p.sig})
			}
		}
		w.log("recover %+v", held)
		w.oracle.pardon(w)
		w.q.reset(w.now)
		actions := w.u.Recover(w.now, held)
		w.oracle.judge(w, actions, true)
		text = w.save()
		w.commit(actions, done)
	}
}

// commit performs actions, the first few or, if done is negative, all of them.
func (w *world) commit(actions []Action, done int) {
	decided := w.q.decided
	w.q.decided = nil
	w.resize()
	for i, a := range actions {
		if done >= 0 && i >= done {
			return
		}
		if w.tracing {
			w.log("    %s", sayAction(a))
		}
		w.perform(a)
	}
	if decided != nil { // away and back in one go is nothing to the kernel, and a reason to flush to the unit
		w.q.zero = *decided
	}
	if done < 0 {
		w.oracle.rest(w)
	}
}

func (w *world) perform(a Action) {
	switch a := a.(type) {
	case Watch:
		w.armed[a.Instance] = true
	case Unwatch:
		w.armed[a.Instance] = false
	case Spawn:
		w.spawned++
		p := w.proc(a.Instance, a.Gen)
		if p == nil || p.born {
			w.fail("spawn %d.%d: the keeper refuses", a.Instance, a.Gen)
			return
		}
		p.born, p.stubborn = true, w.storm && w.rng.IntN(4) == 0
	case Terminate:
		if p := w.proc(a.Instance, a.Gen); p != nil {
			p.sig = sigterm
		}
	case Kill:
		if p := w.proc(a.Instance, a.Gen); p != nil {
			p.sig = sigkill
		}
	case Steer:
		w.steered(a.Weights)
	case Flush:
		w.flushed(a.Instance)
	case AwaitEmpty:
		w.q.asked[a.Instance] = true
	}
}

// acknowledged strikes the ended run off the keeper's list.
func (w *world) acknowledged(ev Event) {
	strike := func(n int, gen uint64) {
		for i := range w.procs {
			if w.procs[i].gen == gen && w.procs[i].n == n {
				w.procs = append(w.procs[:i], w.procs[i+1:]...)
				return
			}
		}
	}
	switch ev := ev.(type) {
	case Exited:
		strike(ev.Instance, ev.Gen)
	case SpawnFailed:
		strike(ev.Instance, ev.Gen)
	}
}

func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

// some draws a duration up to d; short ones are as likely as long ones.
func (w *world) some(d time.Duration) time.Duration {
	return time.Duration(w.rng.Int64N(int64(d)) >> w.rng.IntN(12))
}
