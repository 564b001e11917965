package machine

import "time"

// Condition says what people call the state of an instance. It is derived from the
// facts here and nowhere else. An instance that does not exist is Stopped.
func (u *Unit) Condition(n int) Condition {
	in := u.instance(n)
	if in == nil {
		return Stopped
	}
	on := Condition("")
	for i := range in.Runs {
		switch run := &in.Runs[i]; {
		case run.State == Ready:
			return IsReady
		case run.State == Starting:
			on = IsStarting
		case on == "":
			on = IsDraining
		}
	}
	switch {
	case on != "":
		return on
	case !u.wished(n):
		return Stopped
	case in.Ended && in.Failed:
		return EndedFailed
	case in.Ended:
		return EndedWell
	case in.Until != 0 || u.flushable(n):
		return Backoff
	case u.Paused:
		return IsPaused
	}
	return Idle
}

// conditions appends those of all instances.
func (u *Unit) conditions(all []Condition) []Condition {
	for i := range u.Instances {
		all = append(all, u.Condition(i+1))
	}
	return all
}

// finish adds a report for every condition that is not what it was, and what there
// is to say about replacements. gone is the generation that the event was the end of.
func (s *step) finish(was []Condition, gone uint64) []Action {
	for n := 1; n <= max(len(was), len(s.Instances)); n++ {
		from, to := Stopped, s.Condition(n)
		if n <= len(was) {
			from = was[n-1]
		}
		if from != to {
			s.out = append(s.out, s.report(n, from, to, gone))
		}
	}
	for _, note := range s.notes {
		note.From = s.Condition(note.Instance)
		note.To = note.From
		s.out = append(s.out, note)
	}
	return s.out
}

// report tells of a change, with the reason that the facts give for it.
func (s *step) report(n int, from, to Condition, gone uint64) Report {
	r := Report{Instance: n, Gen: gone, From: from, To: to}
	in := s.instance(n)
	if in == nil {
		return r
	}
	for i := range in.Runs { // the newest that the condition speaks of
		if run := &in.Runs[i]; State(to) == run.State || !run.live() && to == IsDraining {
			r.Gen, r.Because = run.Gen, run.Because
		}
	}
	switch {
	case from == Idle && to == IsStarting && s.Spec.OnDemand:
		r.Because = "connection"
	case from == Idle && to == IsPaused:
		r.Because = "pause"
	case gone != 0 && to != IsReady && r.Because == "":
		r.Because = in.Because
	}
	if to == Backoff {
		r.For = time.Duration(max(in.Until, in.FlushAt) - s.now)
	}
	return r
}

// note tells of a replacement, which may leave the condition as it is.
func (s *step) note(n int, gen uint64, because string) {
	s.notes = append(s.notes, Report{Instance: n, Gen: gen, Because: because})
}
