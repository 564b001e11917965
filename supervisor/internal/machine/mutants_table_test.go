package machine

// A mutant is a planted fault: in file, old becomes new.
type mutant struct{ name, file, old, new string }

var faults = []mutant{
	// Time.
	{"the end of a backoff wakes nobody", "unit.go", "if len(in.Runs) == 0 {\n\t\t\tearliest(in.Until)", "if false {\n\t\t\tearliest(in.Until)"},
	{"the deadline is the last, not the earliest", "unit.go", "t < at)", "t > at)"},
	{"a backoff that ends now has not ended", "settle.go", "in.Until <= s.now", "in.Until < s.now"},
	{"a start before its backoff is over", "settle.go", "!in.Ended && in.Until == 0", "!in.Ended"},
	{"a stop timeout that never ends", "settle.go", "case run.State == Draining && passed:", "case false:"},
	{"a deadline that stays when it was kept", "step.go", "run.State, run.ReadyAt, run.Deadline = Ready, s.now, s.after(run.Watchdog)", "run.State, run.ReadyAt = Ready, s.now"},
	{"no time to leave by itself", "step.go", "\"stopping by itself\", s.after(s.Spec.StopTimeout)", "\"stopping by itself\", run.Deadline"},
	{"asking for time makes it shorter", "step.go", "max(run.Deadline, s.now.Add(ev.Extend))", "s.now.Add(ev.Extend)"},
	{"a sign of life is not heard", "step.go", "(ev.Alive || ev.Watchdog > 0)", "ev.Watchdog > 0"},
	// Backoff and policy.
	{"the delay does not grow", "policy.go", "fails > 1 &&", "fails > 2 &&"},
	{"the delay grows over its limit", "policy.go", "d = min(2*d, s.DelayMax)", "d = 2 * d"},
	{"no delay at all", "policy.go", "max(s.Delay, minDelay)", "s.Delay"},
	{"failures are never forgotten", "step.go", "how == clean || healthy", "how == clean"},
	{"who leaves without accepting spins", "step.go", "} else if !healthy {", "} else if false {"},
	{"an exit that we asked for is a failure", "step.go", "if run.Asked || !s.wished(n) {", "if !s.wished(n) {"},
	{"an exit that nobody minds is a failure", "step.go", "if run.Asked || !s.wished(n) {", "if run.Asked {"},
	{"the demand dies with the run", "step.go", "in.Called || again", "in.Called && again"},
	{"on demand it ends for good", "step.go", "\tif s.Spec.OnDemand {\n\t\tin.Called", "\tif false {\n\t\tin.Called"},
	{"a timeout is an abort", "policy.go", "return how == signal\n", "return how == signal || how == timeout\n"},
	{"the status outweighs our verdict", "policy.go", "case run.Fault == TimedOut:", "case false:"},
	{"what has ended for good starts again", "settle.go", "!in.Ended && in.Until == 0", "in.Until == 0"},
	{"one that leaves has the last word", "step.go", "if !run.Forgiven && !in.attended()", "if !in.attended()"},
	{"forgiven, and counted", "step.go", "if !run.Forgiven {\n", "if true {\n"},
	// Callers.
	{"a start without a caller", "settle.go", "(in.Called || !s.Spec.OnDemand)", "true"},
	{"a shared caller counts for the first only", "step.go", "s.Watched = false\n\t\tfor i := range s.Instances {", "s.Watched = false\n\t\tfor i := range s.Instances[:1] {"},
	{"a caller who was answered calls for ever", "settle.go", "!s.Spec.OnDemand || in.attended()", "!s.Spec.OnDemand"},
	{"nobody watches for one of many", "settle.go", "somewhere = somewhere || waits", "somewhere = waits"},
	{"who vanishes leaves a watch behind", "settle.go", "s.out = append(s.out, Unwatch{Instance: n})", "_ = n"},
	{"time runs over", "unit.go", "d < 0 || sum >= t", "true"},
	// Runs.
	{"a late READY=1 revives", "step.go", "if run.State == Starting {", "if run.State != Ready {"},
	{"relieved too early", "settle.go", "in.Runs[:newest]", "in.Runs[:max(len(in.Runs)-1, 0)]"},
	{"never relieved", "settle.go", "old := &in.Runs[i]; old.live()", "old := &in.Runs[i]; false && old.live()"},
	{"stop leaves out who is starting", "settle.go", "if in.Runs[i].live() {\n\t\t\t\ts.leave(n, &in.Runs[i], true, because)", "if in.Runs[i].State == Ready {\n\t\t\t\ts.leave(n, &in.Runs[i], true, because)"},
	{"a hung program leaves no core", "settle.go", "Abort: run.Fault == Silent", "Abort: false"},
	{"a place vanishes with somebody in it", "settle.go", " && len(s.Instances[len(s.Instances)-1].Runs) == 0 {", " {"},
	{"a generation is used twice", "settle.go", "s.LastGen++\n", "s.LastGen = max(s.LastGen, 1) + uint64(len(in.Runs))\n"},
	// Replacement.
	{"two replacements at a time", "settle.go", "return // its successor", "continue // its successor"},
	{"who was given up is no longer on the way", "settle.go", "j+1 < len(runs) && runs[j].live()", "j+1 < len(runs) && runs[j].Stale"},
	{"the new version fails again and again", "step.go", "(how != clean || unrelieved)", "unrelieved && false"},
	{"a successor that leaves well has succeeded", "step.go", "(how != clean || unrelieved)", "(how != clean || unrelieved && false)"},
	{"the old version's end ends the restart", "step.go", "if gen > s.Upto && (", "if ("},
	{"a restart replaces who came after it", "step.go", "runs[j].Gen <= upto && runs[j].live()", "runs[j].live()"},
	{"who leaves is to be replaced as well", "step.go", "runs[j].Gen <= upto && runs[j].live()", "runs[j].Gen <= upto"},
	// Recovery.
	{"deaf after a crash", "recover.go", "s.Watched = false // nobody", "// nobody"},
	{"deaf on its own sockets after a crash", "recover.go", "\t\tin.Watched = false\n", ""},
	{"what was never born is forgotten", "recover.go", "return r.State != Starting && find", "return find"},
	{"what was never born is late already", "recover.go", "\t\trun.Deadline = s.after(s.Spec.StartTimeout)\n\t\ts.out", "\t\ts.out"},
	{"a lost stop signal stays lost", "recover.go", "run.told() && h.Signal == 0", "false"},
	{"a stop signal is sent twice", "recover.go", "run.told() && h.Signal == 0", "run.told()"},
	{"who leaves by itself is told so after a crash", "recover.go", "run.told() && h.Signal == 0", "h.Signal == 0"},
	{"a lost kill stays lost", "recover.go", "run.State == Killing && h.Signal != sigkill", "false"},
	{"blamed for what nobody heard", "recover.go", "max(run.Deadline, s.now.Add(grace))", "max(run.Deadline, s.now.Add(-grace))"},
	{"the dead are taken over", "recover.go", "h.Gen > last && !h.Ended", "h.Gen > last"},
	{"generations begin again when the state is lost", "recover.go", "\t\ts.LastGen = max(s.LastGen, h.Gen)\n", ""},
}
