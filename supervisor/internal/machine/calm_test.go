package machine

import "time"

// clear is good weather: processes start, become ready, answer and obey. Within a
// bounded time and number of spawns every wished instance must be served.
func (w *world) clear() {
	if w.broken != "" {
		return
	}
	w.log("the weather clears")
	for i := range w.procs {
		w.procs[i].stubborn = false
	}
	w.hear(Tick{}) // what the storm has broken comes to its end first
	for round := 0; w.behave() && w.broken == ""; round++ {
		if round > 300 {
			w.fail("in good weather it does not become quiet: %s", w.save())
		}
	}
	w.hear(Resume{})
	w.hear(Start{})
	spawned := w.spawned
	w.serve()
	if n := w.spawned - spawned; n > 3*w.u.Spec.Instances {
		w.fail("%d spawns to serve %d instances", n, w.u.Spec.Instances)
	}
	if w.broken != "" || w.rng.IntN(2) == 0 {
		return
	}
	upto, runs := w.u.LastGen, len(w.procs)
	spawned = w.spawned
	w.hear(Replace{Upto: upto})
	w.serve()
	if n := w.spawned - spawned; n != runs {
		w.fail("%d spawns to replace %d runs", n, runs)
	}
	for i := range w.procs {
		if w.procs[i].gen <= upto {
			w.fail("run %d.%d was to be replaced", w.procs[i].n, w.procs[i].gen)
		}
	}
}

// serve waits until all is as wished.
func (w *world) serve() {
	for round := 0; w.broken == "" && !w.served(); round++ {
		if round > 300 {
			w.fail("in good weather it does not come to rest: %s", w.save())
			return
		}
		if !w.behave() && !w.call() {
			w.wait()
		}
	}
}

// served reports whether all is as wished.
func (w *world) served() bool {
	if len(w.news) > 0 || len(w.said) > 0 || len(w.u.Instances) != w.u.Spec.Instances {
		return false
	}
	callable := w.u.Spec.Shared || w.u.Spec.PerInstance || !w.u.Spec.OnDemand
	for k := 1; k <= w.q.places; k++ {
		if callable && w.q.waiting[k] > 0 {
			return false
		}
	}
	for i := range w.u.Instances {
		runs := w.u.Instances[i].Runs
		if len(runs) > 1 || callable && len(runs) == 0 {
			return false
		}
		for j := range runs {
			if runs[j].State != Ready || runs[j].Stale {
				return false
			}
		}
	}
	return true
}

// behave lets every process do the right thing, and reports whether anything was left to do.
func (w *world) behave() bool {
	busy := w.connect()
	busy = w.look() || busy
	for i := range w.procs {
		p := &w.procs[i]
		switch {
		case !p.born || p.dead:
		case p.sig == sigkill:
			w.exit(p, Status{Signal: sigkill})
		case (p.sig != 0 || p.stopping) && !p.stubborn:
			w.exit(p, Status{})
		case !p.execed:
			p.execed = true
			w.news = append(w.news, Execed{Instance: p.n, Gen: p.gen})
		case !p.spoke:
			p.spoke = true
			w.say(p, Notified{Ready: true})
		default:
			busy = w.accept(p) || busy
		}
	}
	for len(w.news) > 0 || len(w.said) > 0 {
		w.deliver()
		busy = true
	}
	return busy
}

// wait lets time pass to the next deadline. The living are heard in time.
func (w *world) wait() {
	at, ok := w.u.Deadline()
	if !ok {
		w.fail("it waits for nothing: %s", w.save())
		return
	}
	w.now = at - 1
	for i := range w.procs {
		if p := &w.procs[i]; p.born && !p.dead && p.dog > 0 {
			w.hear(Notified{Instance: p.n, Gen: p.gen, Alive: true})
		}
	}
	w.now = at
	w.hear(Tick{})
}

// end: after Stop nobody survives the stop timeout plus a moment, stubborn or not.
func (w *world) end() {
	if w.broken != "" {
		return
	}
	for i := range w.procs {
		w.procs[i].stubborn = w.u.Spec.StopTimeout > 0 && w.rng.IntN(3) == 0
	}
	began := w.now
	w.hear(Stop{})
	for round := 0; !w.u.Empty() && w.broken == ""; round++ {
		if round > 100 {
			w.fail("stop does not come to an end: %s", w.save())
		}
		if !w.behave() {
			w.wait()
		}
	}
	if took := time.Duration(w.now - began); w.broken == "" && took > w.u.Spec.StopTimeout {
		w.fail("stop took %v", took)
	}
	if len(w.procs) > 0 {
		w.fail("stopped, and a process lives")
	}
	if w.armed != [maxInstances + 1]bool{} {
		w.fail("stopped, and still watching")
	}
	if at, ok := w.u.Deadline(); ok {
		w.fail("stopped, and waiting until %v", time.Duration(at))
	}
}
