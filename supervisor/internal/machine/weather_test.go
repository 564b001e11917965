package machine

import (
	"math/rand/v2"
	"time"
)

// history lives one history: a storm, then good weather, then the end.
func (w *world) history(rng *rand.Rand) {
	*w = world{rng: rng, now: birth, procs: w.procs[:0], news: w.news[:0], said: w.said[:0], tracing: w.tracing,
		events: w.events, crashes: w.crashes, spawned: w.spawned, flushes: w.flushes, replaced: w.replaced, arrived: w.arrived, together: w.together, storm: true}
	w.u = New(w.anySpec())
	w.oracle.spec = w.u.Spec
	w.q.places = w.u.Spec.Instances
	for n := range w.oracle.places {
		w.oracle.places[n].condition = Stopped
	}
	w.log("spec %+v", w.u.Spec)
	if rng.IntN(4) > 0 {
		w.hear(Start{})
	}
	for range 20 + rng.IntN(160) {
		if w.broken != "" {
			return
		}
		w.blow()
	}
	w.storm = false
	w.clear()
	w.end()
}

// anySpec draws a specification. Small delays and timeouts and large ones meet.
func (w *world) anySpec() Spec {
	of := func(ds ...time.Duration) time.Duration { return ds[w.rng.IntN(len(ds))] }
	s := Spec{
		Instances: 1 + w.rng.IntN(maxInstances), OnDemand: w.rng.IntN(2) == 0, Notify: w.rng.IntN(2) == 0,
		StartTimeout: of(0, time.Second, 5*time.Second), StopTimeout: of(0, time.Second, 3*time.Second),
		Watchdog: of(0, 0, 2*time.Second),
		Restart:  []Restart{No, OnSuccess, OnFailure, OnAbnormal, OnWatchdog, OnAbort, Always, Always}[w.rng.IntN(8)],
		Delay:    of(0, 100*time.Millisecond, time.Second), DelayMax: of(0, 150*time.Millisecond, 30*time.Second), Reset: of(0, time.Second, 10*time.Second),
	}
	s.Shared = w.rng.IntN(2) == 0
	s.PerInstance = !s.Shared || w.rng.IntN(4) == 0
	s.Steered = s.PerInstance && w.rng.IntN(3) > 0
	s.CanFlush = s.Steered && w.rng.IntN(3) > 0
	s.Exclusive, s.Step = w.rng.IntN(3) == 0, w.rng.IntN(4)
	s.Overlap = of(0, 0, 20*time.Millisecond, 2*time.Second)
	return s
}

// blow lets one thing happen.
func (w *world) blow() {
	switch x := w.rng.IntN(100); {
	case x < 20:
		w.tick()
	case x < 42:
		w.deliver()
	case x < 45:
		w.look()
	case x < 75:
		w.act()
	case x < 83:
		w.arrive()
		w.connect()
	case x < 93:
		w.decree()
	default:
		w.gossip()
	}
}

// tick lets time pass, up to the deadline or not so far, and tells the unit if it is due.
func (w *world) tick() {
	if at, ok := w.u.Deadline(); ok && at > w.now && w.rng.IntN(3) > 0 {
		w.now = at
		if w.rng.IntN(8) == 0 {
			w.pass(w.some(2 * time.Second)) // late
		}
	} else {
		w.pass(w.some(4 * time.Second))
	}
	if at, ok := w.u.Deadline(); ok && at <= w.now && w.rng.IntN(8) > 0 {
		w.hear(Tick{})
	}
}

// deliver brings one piece of news, and keeps it if it was not acknowledged.
func (w *world) deliver() {
	if len(w.said) > 0 && (len(w.news) == 0 || w.rng.IntN(2) == 0) {
		if w.hear(w.said[0]) {
			w.said = w.said[1:]
		}
	} else if len(w.news) > 0 {
		some := w.news[:w.distinct(1+w.rng.IntN(4))]
		if w.hear(some...) {
			w.news = w.news[len(some):]
			for _, ev := range some {
				w.acknowledged(ev)
			}
		}
	}
}

// distinct is how many pieces of news, most at most, wait that are of one instance each.
func (w *world) distinct(most int) int {
	var of [maxInstances + 1]bool
	for i, ev := range w.news[:min(most, len(w.news))] {
		n := 0
		switch ev := ev.(type) {
		case Execed:
			n = ev.Instance
		case SpawnFailed:
			n = ev.Instance
		case Exited:
			n = ev.Instance
		}
		if of[n] {
			return i
		}
		of[n] = true
	}
	return min(most, len(w.news))
}

// connect makes one armed watch with callers fire.
func (w *world) connect() bool {
	for k := range w.armed {
		if w.armed[k] && w.q.waiting[k] > 0 {
			w.armed[k] = false
			w.hear(Connected{Instance: k})
			return true
		}
	}
	return false
}

// act lets some process do something. Nobody hears of it yet.
func (w *world) act() {
	if len(w.procs) == 0 {
		return
	}
	p := &w.procs[w.rng.IntN(len(w.procs))]
	if !p.born || p.dead {
		return
	}
	x := w.rng.IntN(100)
	switch {
	case p.sig == sigkill:
		w.exit(p, Status{Signal: sigkill})
	case p.sig != 0 && !p.stubborn && x < 60:
		w.exit(p, Status{})
	case !p.execed && x < 12:
		p.dead = true
		w.news = append(w.news, SpawnFailed{Instance: p.n, Gen: p.gen, Because: "exec: no such file", Jitter: w.rng.Float64()})
	case !p.execed:
		p.execed = true
		w.news = append(w.news, Execed{Instance: p.n, Gen: p.gen})
	case x < 50:
		w.say(p, Notified{Ready: true})
	case x < 80:
		w.say(p, w.anyWords())
	default:
		w.exit(p, []Status{{}, {Code: 1}, {Signal: 15}, {Signal: 11, Core: true}, {Signal: 9}}[w.rng.IntN(5)])
	}
	if p.execed && !p.dead && x&1 == 0 { // whoever runs accepts
		w.accept(p)
	}
}

func (w *world) anyWords() Notified {
	var ev Notified
	switch w.rng.IntN(12) {
	case 0:
		ev.Trip = true
	case 1:
		ev.Stopping = true
	case 2:
		ev.Watchdog = time.Second + w.some(10*time.Second)
	case 3:
		ev.Extend = w.some(10 * time.Second)
	case 4:
		ev.Reloading = true
	case 5:
		ev.Stopping, ev.Extend = true, w.some(10*time.Second)
	case 6:
		ev.Ready, ev.Stopping, ev.Alive = true, true, true
	default:
		ev.Alive = true
	}
	return ev
}

func (w *world) say(p *proc, ev Notified) {
	ev.Instance, ev.Gen = p.n, p.gen
	w.said = append(w.said, ev)
}

func (w *world) exit(p *proc, st Status) {
	p.dead = true
	w.news = append(w.news, Exited{Instance: p.n, Gen: p.gen, Status: st, Jitter: w.rng.Float64()})
}

// decree is an operator at work.
func (w *world) decree() {
	ev := w.order
	w.order = nil
	if ev == nil {
		switch x := w.rng.IntN(14); {
		case x < 5:
			ev = Start{}
		case x < 6:
			ev = Stop{}
		case x < 8:
			ev = Replace{Upto: w.someGen()}
		case x < 10:
			ev = Scale{Instances: w.rng.IntN(maxInstances + 1)}
		case x < 11:
			ev = Pause{}
		case x < 12:
			ev = Resume{}
		default:
			spec := w.anySpec()
			if w.rng.IntN(2) == 0 { // only another number of instances
				was := w.u.Spec
				was.Instances = spec.Instances
				spec = was
			}
			ev = Respec{Spec: spec, Upto: w.someGen() * uint64(w.rng.IntN(2))}
		}
	}
	w.hear(ev)
}

// someGen is most often all that have been given.
func (w *world) someGen() uint64 {
	if w.rng.IntN(3) == 0 {
		return w.rng.Uint64N(w.u.LastGen + 2)
	}
	return w.u.LastGen
}

// gossip is news about those who are gone or never were, or heard before.
func (w *world) gossip() {
	n, gen := w.rng.IntN(maxInstances+2), w.rng.Uint64N(w.u.LastGen+2)
	p := w.proc(n, gen)
	x := w.rng.IntN(6)
	switch {
	case x == 5:
		w.hear(Emptied{Instance: n}) // heard late, or for a wait that is over
	case x == 0:
		if n <= maxInstances {
			w.armed[n] = false
		}
		w.hear(Connected{Instance: n}) // somebody else has taken the connection since
	case p != nil && p.execed && len(w.news) == 0:
		w.hear(Execed{Instance: n, Gen: gen})
	case p != nil:
	case x == 1:
		w.hear(Exited{Instance: n, Gen: gen, Status: Status{Code: 1}, Jitter: 0.5})
	case x == 2:
		w.hear(SpawnFailed{Instance: n, Gen: gen, Jitter: 0.5})
	case x == 3:
		w.hear(Notified{Instance: n, Gen: gen, Ready: true, Stopping: true, Trip: true})
	case x == 4:
		w.hear(Execed{Instance: n, Gen: gen})
	}
}
