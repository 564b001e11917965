package machine

// judge looks at what was decided, before anything of it is done.
func (o *oracle) judge(w *world, actions []Action, recovering bool) {
	o.judgeAway(w)
	for _, a := range actions {
		switch a := a.(type) {
		case Flush:
			o.judgeFlush(w, a)
		case AwaitEmpty:
			pl := &o.places[a.Instance]
			pl.emptyBy, pl.emptied = w.now.Add(w.u.Spec.emptyTimeout()), false
		case Spawn:
			o.judgeSpawn(w, a, recovering)
		case Terminate:
			o.judgeTerminate(w, a, recovering)
		case Kill:
			o.judgeKill(w, a, recovering)
		case Report:
			if a.From != a.To {
				if a.From != o.places[a.Instance].condition {
					w.fail("report from %s, where it was %s", a.From, o.places[a.Instance].condition)
				}
				o.places[a.Instance].condition = a.To
			}
		}
	}
	for i := range w.procs { // an end the unit no longer knows of, or never did, is old news
		p := &w.procs[i]
		run := w.u.run(p.n, p.gen)
		switch {
		case run == nil && !p.absorbed:
			w.fail("run %d.%d is forgotten", p.n, p.gen)
		case run != nil && p.absorbed:
			w.fail("run %d.%d is remembered", p.n, p.gen)
		case run != nil && run.told() && run.State != Killing && !p.told:
			w.fail("run %d.%d should be told to leave", p.n, p.gen)
		case run != nil && run.State == Killing && !p.killed:
			w.fail("run %d.%d should be killed", p.n, p.gen)
		}
	}
	o.judgeWaits(w)
	for n := 1; n <= maxInstances; n++ {
		o.judgePlace(w, n)
	}
	o.judgeSteer(w, actions, recovering)
	o.judgeQueues(w)
	if err := w.u.Check(); err != nil {
		w.fail("%v", err)
	}
	o.judgeDeadline(w)
	for n := range o.places {
		o.places[n].lost = false
	}
}

// count returns the runs of instance n that are not known to have ended, and how
// many of them are not leaving.
func (o *oracle) count(w *world, n int) (all, live int) {
	for i := range w.procs {
		if p := &w.procs[i]; p.n == n && !p.absorbed {
			all++
			if p.live() {
				live++
			}
		}
	}
	return all, live
}

func (o *oracle) judgeSpawn(w *world, a Spawn, recovering bool) {
	if p := w.proc(a.Instance, a.Gen); p != nil || a.Gen <= o.lastGen {
		if p == nil || !recovering || p.born || p.absorbed {
			w.fail("generation %d is used twice", a.Gen)
			return
		}
		p.patient = w.now.Add(o.spec.StartTimeout) // saved and never born
		return
	}
	o.lastGen = a.Gen
	pl := &o.places[a.Instance]
	if _, must := o.unflushed(w, a.Instance); must && !recovering && (pl.lost || w.q.weights != nil && !w.q.open(a.Instance)) {
		w.fail("a start before its queue was moved")
	}
	all, live := o.count(w, a.Instance)
	switch {
	case !o.wished(w, a.Instance) || w.paused:
		w.fail("a start that nobody wished")
	case all > 0 && o.spec.Exclusive:
		w.fail("a start beside another run, where two must not coexist")
	case all == 0 && w.now < pl.from:
		w.fail("a start before its backoff is over")
	case all == 0 && o.spec.OnDemand && !pl.called:
		w.fail("a start without a caller")
	case all == 0 && pl.ended:
		w.fail("a start after it had ended for good")
	case all > 0 && (all != 1 || live != 1):
		w.fail("a successor beside %d runs, %d of them not leaving", all, live)
	case all > 0 && pl.successors == 0:
		w.fail("a successor that nobody has asked for")
	}
	if all > 0 {
		pl.successors--
		if o.replacing(w, a.Instance) >= max(o.spec.Step, 1) {
			w.fail("too many replacements at a time")
		}
		w.replaced++
	}
	pl.called = false
	w.procs = append(w.procs, proc{n: a.Instance, gen: a.Gen, dog: o.spec.Watchdog, patient: w.now.Add(o.spec.StartTimeout)})
}

func (o *oracle) judgeTerminate(w *world, a Terminate, recovering bool) {
	p, run := w.proc(a.Instance, a.Gen), w.u.run(a.Instance, a.Gen)
	if p == nil || run == nil || p.absorbed {
		w.fail("terminate %d.%d: there is no such run", a.Instance, a.Gen)
		return
	}
	if p.told {
		if !recovering || p.sig != 0 {
			w.fail("run %d.%d is told twice", a.Instance, a.Gen)
		}
		if a.Abort != (p.fault == Silent) {
			w.fail("run %d.%d is told something else the second time", a.Instance, a.Gen)
		}
		o.patience(w, p)
		return
	}
	relieved := false
	for i := range w.procs {
		q := &w.procs[i]
		relieved = relieved || q.n == p.n && q.gen > p.gen && q.live() && q.ready && (!p.ready || o.spec.Exclusive || w.now >= q.readyAt.Add(o.spec.Overlap))
	}
	silent := p.ready && p.dog > 0 && w.now >= p.ping.Add(p.dog) && w.now >= p.patient || p.tripped
	late := !p.ready && o.spec.StartTimeout >= 0 && w.now >= p.patient
	pl := &o.places[p.n]
	switch {
	case p.stopping:
		w.fail("told to leave, and it was leaving by itself")
	case run.Asked && o.wished(w, p.n) && !relieved && (!o.spec.Exclusive || pl.successors == 0 || w.paused):
		w.fail("the last run of a wished instance is told to leave")
	case run.Asked && o.wished(w, p.n) && !relieved:
		pl.successors, pl.called = 0, o.spec.OnDemand
		o.judgeEmptying(w, p)
		pl.left = p.ready
		w.replaced++
	case run.Asked && !relieved && w.up && !o.spec.CanFlush:
		o.judgeEmptying(w, p)
	case run.Fault == Silent && !silent || a.Abort != (run.Fault == Silent):
		w.fail("an abort without a reason")
	case run.Fault == TimedOut && !late:
		w.fail("a start timeout before its time")
	case !run.Asked && run.Fault == "":
		w.fail("told to leave without a reason")
	}
	p.told, p.asked, p.fault = true, run.Asked, run.Fault
	o.patience(w, p)
}

func (o *oracle) judgeKill(w *world, a Kill, recovering bool) {
	p, run := w.proc(a.Instance, a.Gen), w.u.run(a.Instance, a.Gen)
	switch {
	case p == nil || run == nil || p.absorbed:
		w.fail("kill %d.%d: there is no such run", a.Instance, a.Gen)
		return
	case p.killed && (!recovering || p.sig == sigkill):
		w.fail("killed twice")
	case !p.told && !p.stopping:
		w.fail("killed without having been told to leave")
	case !p.killed && (p.mercy == 0 || w.now < p.mercy):
		w.fail("killed before its stop timeout")
	}
	p.killed, p.told, p.asked, p.fault = true, true, run.Asked, run.Fault
	if !p.asked && p.fault == "" {
		w.fail("killed, and nobody is to blame")
	}
}

// judgePlace looks at what has to be true of an instance after every step.
func (o *oracle) judgePlace(w *world, n int) {
	pl := &o.places[n]
	all, live := o.count(w, n)
	if !o.wished(w, n) {
		*pl = place{condition: pl.condition, emptyBy: pl.emptyBy, emptied: pl.emptied, successors: min(live, 1)}
		empties := pl.emptyBy != 0 && w.up && o.spec.Steered && !o.spec.CanFlush && o.siblingServes(w, n) && live == 1
		if live > 0 && !empties {
			w.fail("not wished, and somebody was not told")
		}
	}
	if live > 0 || !o.spec.OnDemand {
		pl.called = false
	}
	if all > 2 {
		w.fail("%d runs in an instance", all)
	}
	if got := w.u.Condition(n); got != pl.condition {
		w.fail("instance %d is %s, reported was %s", n, got, pl.condition)
	}
	in := w.u.instance(n)
	if in == nil {
		if all > 0 {
			w.fail("instance %d vanished, and somebody is there", n)
		}
		return
	}
	if in.Ended != pl.ended || in.Fails != pl.fails {
		w.fail("ended %v with %d failures, by the books %v with %d", in.Ended, in.Fails, pl.ended, pl.fails)
	}
	if w.paused && in.Watched {
		w.fail("somebody listens while paused")
	}
	if _, waits := o.unflushed(w, n); o.wished(w, n) && !w.paused && !waits && all == 0 && !pl.ended && w.now >= pl.to {
		switch {
		case !o.spec.OnDemand:
			w.fail("nobody is there, and nobody comes")
		case pl.called:
			w.fail("somebody calls, and nobody comes")
		case o.spec.Shared && !w.u.Watched || o.spec.PerInstance && !in.Watched:
			w.fail("nobody is there, and nobody listens")
		}
	}
}

// judgeDeadline: in the future, and no later than the earliest need.
func (o *oracle) judgeDeadline(w *world) {
	at, ok := w.u.Deadline()
	if ok && at <= w.now {
		w.fail("a deadline in the past")
	}
	for n := 1; n <= maxInstances; n++ {
		pl := &o.places[n]
		if all, _ := o.count(w, n); o.wished(w, n) && all == 0 && !pl.ended && w.now < pl.from && (!ok || at > pl.to) {
			w.fail("the end of a backoff will be missed")
		}
	}
	for i := range w.procs {
		p := &w.procs[i]
		switch {
		case p.absorbed:
		case (p.told || p.stopping) && !p.killed && p.mercy != 0 && (!ok || at > p.mercy):
			w.fail("the end of a stop timeout will be missed")
		case p.live() && p.ready && w.readyBeside(p) && (!ok || at > p.readyAt.Add(o.spec.Overlap)):
			w.fail("the end of an overlap will be missed")
		case p.live() && p.ready && p.dog > 0 && (!ok || at > max(p.ping.Add(p.dog), p.patient)):
			w.fail("the end of a watchdog will be missed")
		}
	}
}

// readyBeside reports whether p is the successor of somebody who stays beside it.
func (w *world) readyBeside(p *proc) bool {
	for i := range w.procs {
		if q := &w.procs[i]; q.n == p.n && q.gen < p.gen && q.live() && q.ready {
			return true
		}
	}
	return false
}

// rest looks at a unit whose actions have all been done.
func (o *oracle) rest(w *world) {
	at, _ := w.u.Deadline()
	if again := w.u.Step(w.now, Tick{}); len(again) > 0 {
		w.fail("settled twice is not settled once: %s", saying(w.u, again))
	}
	if then, _ := w.u.Deadline(); then != at {
		w.fail("settled twice, the deadline has moved")
	}
	if w.u.Watched && !w.armed[0] {
		w.fail("deaf on the shared sockets")
	}
	for i := range w.u.Instances {
		if w.u.Instances[i].Watched && !w.armed[i+1] {
			w.fail("deaf on the sockets of instance %d", i+1)
		}
		if w.u.Instances[i].EmptyBy != 0 && !w.q.asked[i+1] {
			w.fail("nobody looks at the queue of instance %d", i+1)
		}
	}
	for i := range w.procs {
		if p := &w.procs[i]; !p.absorbed && !p.born {
			w.fail("run %d.%d is intended, and not born", p.n, p.gen)
		} else if !p.absorbed && p.told && p.sig == 0 || !p.absorbed && p.killed && p.sig != sigkill {
			w.fail("run %d.%d has not got its signal", p.n, p.gen)
		}
	}
}
