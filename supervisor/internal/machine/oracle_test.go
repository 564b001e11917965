package machine

import (
	"slices"
	"time"
)

// An oracle keeps its own, simple books of what was wished, heard and decided, and
// says where the unit breaks a promise. It looks into the unit only to compare.
type oracle struct {
	spec    Spec
	lastGen uint64
	places  [maxInstances + 1]place
}

// A place is what the oracle knows of an instance.
type place struct {
	called     bool
	ended      bool
	fails      int
	from, to   Instant // the next start or watch is not before from and not after to
	successors int     // how many replacements were asked for and not begun
	condition  Condition
	lost       bool    // a run has gone in this step
	away       bool    // being replaced exclusively
	begun      bool    // … since this step
	left       bool    // its ready run has been told to leave for that, in this step
	emptyBy    Instant // its run is not told to leave before, or before emptied
	emptied    bool
}

func (o *oracle) wished(w *world, n int) bool { return w.up && n <= o.spec.Instances }

func (o *oracle) absorb(w *world, ev Event) {
	switch ev := ev.(type) {
	case Start:
		w.up = true
		o.forgive(w)
	case Stop:
		w.up = false
	case Replace:
		o.replace(w, ev.Upto)
	case Respec:
		o.spec = ev.Spec
		for n := range o.places {
			o.places[n].ended = o.places[n].ended && !ev.Spec.OnDemand
		}
		if ev.Upto > 0 {
			o.replace(w, ev.Upto)
		}
	case Scale:
		o.spec.Instances = max(ev.Instances, 1)
	case Pause:
		w.paused = true
	case Resume:
		w.paused = false
	case Emptied:
		if ev.Instance >= 1 && ev.Instance <= maxInstances {
			o.places[ev.Instance].emptied = true
		}
	case Connected:
		for n := range o.places {
			if ev.Instance == 0 || ev.Instance == n {
				o.places[n].called = true
			}
		}
	case Execed:
		if p := w.proc(ev.Instance, ev.Gen); p != nil && !o.spec.Notify {
			o.ready(w, p)
		}
	case Notified:
		if p := w.proc(ev.Instance, ev.Gen); p != nil {
			o.notified(w, p, ev)
		}
	case SpawnFailed:
		o.gone(w, w.proc(ev.Instance, ev.Gen), "code")
	case Exited:
		how := "clean"
		if ev.Status.Code != 0 {
			how = "code"
		} else if !slices.Contains([]int{0, 1, 2, 13, 15}, ev.Status.Signal) {
			how = "signal"
		}
		o.gone(w, w.proc(ev.Instance, ev.Gen), how)
	}
}

func (o *oracle) forgive(w *world) {
	for i := range w.procs {
		p := &w.procs[i]
		p.forgiven = p.forgiven || !p.live()
	}
	for n := range o.places {
		pl := &o.places[n]
		pl.fails, pl.from, pl.to, pl.ended = 0, 0, 0, false
	}
}

func (o *oracle) replace(w *world, upto uint64) {
	o.forgive(w)
	upto = min(upto, o.lastGen)
	for n := range o.places {
		older, younger := false, false
		for i := range w.procs {
			if p := &w.procs[i]; p.n == n && p.live() {
				older, younger = older || p.gen <= upto, younger || p.gen > upto
			}
		}
		if older && !younger {
			o.places[n].successors = 1
		}
	}
}

func (o *oracle) ready(w *world, p *proc) {
	if p.live() && !p.ready {
		p.ready, p.readyAt, p.ping, p.patient = true, w.now, w.now, 0
	}
}

func (o *oracle) notified(w *world, p *proc, ev Notified) {
	if ev.Watchdog > 0 {
		p.dog = ev.Watchdog
	}
	if ev.Ready {
		o.ready(w, p)
	}
	if p.ready && (ev.Alive || ev.Watchdog > 0) {
		p.ping, p.patient = w.now, 0
	}
	if ev.Extend > 0 {
		p.patient = max(p.patient, w.now.Add(ev.Extend))
		if p.mercy != 0 {
			p.mercy = max(p.mercy, w.now.Add(ev.Extend))
		}
	}
	if ev.Trip && p.live() {
		p.tripped = true
	} else if ev.Stopping && p.live() {
		p.stopping = true
		o.patience(w, p)
		if ev.Extend > 0 && p.mercy != 0 {
			p.mercy = max(p.mercy, w.now.Add(ev.Extend))
		}
	}
}

// patience notes how long the run may take to leave, from now.
func (o *oracle) patience(w *world, p *proc) {
	p.mercy = 0
	if o.spec.StopTimeout > 0 {
		p.mercy = w.now.Add(o.spec.StopTimeout)
	}
}

// restarts is the table of systemd.service(5), by rows.
var restarts = map[Restart]string{
	No: "", OnSuccess: "clean", OnFailure: "code signal timeout watchdog protocol", OnAbnormal: "signal timeout watchdog protocol",
	OnAbort: "signal", OnWatchdog: "watchdog", Always: "clean code signal timeout watchdog protocol",
}

func (o *oracle) gone(w *world, p *proc, how string) {
	if p == nil || p.absorbed {
		return
	}
	p.absorbed = true
	o.places[p.n].lost = true
	if p.asked || p.forgiven || !o.wished(w, p.n) {
		return
	}
	pl := &o.places[p.n]
	switch {
	case p.fault != "":
		how = string(p.fault)
	case how == "clean" && o.spec.Notify && !p.ready:
		how = "protocol"
	}
	long := p.ready && time.Duration(w.now-p.readyAt) >= o.spec.Reset
	wait := max(o.spec.Delay, 10*time.Millisecond)
	switch {
	case how != "clean":
		if long {
			pl.fails = 0
		}
		pl.fails++
		if p.ready && time.Duration(w.now-p.readyAt) >= 10*time.Millisecond && pl.fails == 1 {
			wait = o.spec.Delay
		}
		for i := 1; i < pl.fails && i < 40 && wait < o.spec.DelayMax; i++ {
			wait = min(2*wait, o.spec.DelayMax)
		}
	case long:
		pl.fails, wait = 0, 0
	default:
		pl.fails = 0
	}
	if wait > 0 || how != "clean" {
		pl.from, pl.to = w.now.Add(wait*9/10-1), w.now.Add(wait*11/10+1)
	}
	for i := range w.procs {
		if q := &w.procs[i]; q.n == p.n && q.live() {
			return
		}
	}
	again := contains(restarts[o.spec.Restart], how)
	if o.spec.OnDemand {
		pl.called = pl.called || again
	} else if pl.ended = !again; pl.ended {
		pl.from, pl.to = 0, 0
	}
}

func contains(words, word string) bool {
	for len(words) >= len(word) && words != "" {
		if words[:len(word)] == word && (len(words) == len(word) || words[len(word)] == ' ') {
			return true
		}
		i := 0
		for i < len(words) && words[i] != ' ' {
			i++
		}
		words = words[min(i+1, len(words)):]
	}
	return false
}

// pardon: nobody is blamed for silence while nobody listened.
func (o *oracle) pardon(w *world) {
	for i := range w.procs {
		w.procs[i].ping = w.now
	}
}

// forget follows a supervisor that has lost its saved state.
func (o *oracle) forget(w *world) {
	o.spec, o.lastGen = w.u.Spec, 0
	o.places = [maxInstances + 1]place{}
	kept := w.procs[:0]
	for _, p := range w.procs {
		if !p.born {
			continue // saved, and lost with the save
		}
		q := proc{absorbed: p.dead, n: p.n, gen: p.gen, born: true, execed: p.execed, spoke: p.spoke, dead: p.dead, sig: p.sig, stubborn: p.stubborn}
		q.dog = o.spec.Watchdog
		if q.told = q.sig != 0; q.told {
			q.asked = true
			o.patience(w, &q)
		} else if q.execed && !q.dead {
			o.ready(w, &q)
		}
		kept = append(kept, q)
		o.lastGen = max(o.lastGen, p.gen)
	}
	w.procs = kept
	for n := 1; n <= maxInstances; n++ {
		o.places[n].condition = w.u.Condition(n)
	}
}
