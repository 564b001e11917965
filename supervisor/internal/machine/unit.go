package machine

import (
	"math"
	"time"
)

// An Instant is nanoseconds on CLOCK_BOOTTIME: a saved deadline means the same
// moment to the next supervisor. Zero is "never" or "not yet".
type Instant int64

// Add returns the instant d later, and the last one there is if that is later still:
// a service may ask for any time it likes.
func (t Instant) Add(d time.Duration) Instant {
	if sum := t + Instant(d); d < 0 || sum >= t {
		return sum
	}
	return math.MaxInt64
}

// A Spec is what the unit file says, as far as decisions depend on it.
type Spec struct {
	Instances   int  // how many places; at least 1
	OnDemand    bool // start when a caller comes, not at once
	Shared      bool // some socket is shared by all instances: its caller is Connected{Instance: 0}
	PerInstance bool // some socket is per instance: its caller is Connected{Instance: 1…N}
	Notify      bool // ready when the run says READY=1; otherwise when exec has succeeded

	StartTimeout time.Duration // from spawn to ready; 0 waits for ever
	StopTimeout  time.Duration // from the stop signal to the kill; 0 waits for ever
	Watchdog     time.Duration // a ready run must say WATCHDOG=1 within it; 0 is off

	Restart  Restart       // which exits are followed by another start
	Delay    time.Duration // before the first restart; doubles with every failure in a row, from 10 ms if it is 0
	DelayMax time.Duration // the delay grows no further
	Reset    time.Duration // failures are forgotten when a run has been ready that long

	Steered   bool `json:",omitzero"` // the sockets per instance are groups, and the share of new connections each gets can be set
	CanFlush  bool `json:",omitzero"` // a queue can be moved to the siblings of its socket; only with Steered
	Exclusive bool `json:",omitzero"` // two runs of an instance must not coexist: the old one leaves before the new one comes
	Step      int  `json:",omitzero"` // how many instances are replaced at a time; 0 is 1

	Overlap time.Duration `json:",omitzero"` // a ready run stays that long beside its ready successor, and goes on if that ends meanwhile; not where Exclusive
}

// Restart says which exits are followed by another start; systemd's words.
type Restart string

const (
	No         Restart = "no"
	OnSuccess  Restart = "on-success"
	OnFailure  Restart = "on-failure"
	OnAbnormal Restart = "on-abnormal"
	OnWatchdog Restart = "on-watchdog"
	OnAbort    Restart = "on-abort"
	Always     Restart = "always"
)

// A Unit is one service and all that is known about its processes. It is plain
// data; its JSON is what the keeper saves.
type Unit struct {
	Spec      Spec
	Up        bool       // what the operator wishes
	Paused    bool       `json:",omitzero"` // start nobody and watch nobody until Resume; who lives goes on
	Scaled    bool       `json:",omitzero"` // Spec.Instances is what Scale said, not what the unit file says
	Weights   []int      `json:",omitzero"` // as last given to Steer, by instance; nil if nothing is known of them
	Instances []Instance // by number, Instances[0] is number 1
	Watched   bool       // we have asked to hear of a connection on the shared sockets
	LastGen   uint64     // generations are per unit and never used again
	Upto      uint64     // the newest generation anybody asked to replace: younger ones are the new version
}

// An Instance is a numbered place for a process. Most of the time it holds one
// run, during a replacement two, never more.
type Instance struct {
	Runs    []Run   `json:",omitzero"` // oldest first
	Fails   int     `json:",omitzero"` // failures in a row
	Until   Instant `json:",omitzero"` // no start before; 0 if none is waiting
	Called  bool    `json:",omitzero"` // somebody has connected, or policy wants it back, and nobody has answered
	Watched bool    `json:",omitzero"` // we have asked to hear of a connection on its own sockets
	Ended   bool    `json:",omitzero"` // ended for good: policy starts it no more until an operator asks
	Failed  bool    `json:",omitzero"` // with Ended: its last run failed
	Because string  `json:",omitzero"` // what its last run ended with, for people; "" if nothing yet

	Away    bool    `json:",omitzero"` // being replaced exclusively: until its new run is ready, or has failed
	EmptyBy Instant `json:",omitzero"` // its queue should be empty before its run is told to leave, which is then at the latest; 0 if nobody waits for that
	FlushAt Instant `json:",omitzero"` // steered away a moment before: its queue may be moved from then on, once; 0 if it has been, or nothing is in it
	Flushed bool    `json:",omitzero"` // a surplus place whose queue was moved a moment before FlushAt: then it vanishes
}

// A Run is one process in an instance, from fork to reap.
type Run struct {
	Gen      uint64
	State    State
	Asked    bool          `json:",omitzero"` // leaving because we said so: its exit is no failure
	Fault    Fault         `json:",omitzero"` // leaving because our patience ended: its exit is a failure
	Forgiven bool          `json:",omitzero"` // an operator wants another try since it began to leave: its exit decides nothing
	Stale    bool          `json:",omitzero"` // to be replaced; stays until relieved
	Because  string        `json:",omitzero"` // why it leaves, for people
	Unready  string        `json:",omitzero"` // while it starts: what a readiness gate has found wrong, for people
	Kept     string        `json:",omitzero"` // why it was not replaced the last time that somebody asked, for people
	Watchdog time.Duration `json:",omitzero"` // as it was told at its start, or has changed it; 0 is off
	ReadyAt  Instant       `json:",omitzero"` // 0 before readiness
	Deadline Instant       `json:",omitzero"` // when patience ends; 0 is never
}

// State is how far a run has come. It goes forward only; it may leave from any.
type State string

const (
	Starting State = "starting" // spawned, not yet ready
	Ready    State = "ready"
	Draining State = "draining" // told to leave, may finish
	Killing  State = "killing"  // SIGKILL has been sent to all of it
)

// Fault says in what a run has disappointed us. It outweighs the exit status.
type Fault string

const (
	TimedOut Fault = "timeout"  // not ready, or not gone, in time
	Silent   Fault = "watchdog" // no WATCHDOG=1 in time, or it asked to be treated so
)

// New returns the unit of a specification, not yet wished up.
func New(spec Spec) *Unit {
	return &Unit{Spec: spec, Instances: make([]Instance, spec.Instances)}
}

// Deadline is when the unit wants a Tick, and whether it wants one at all. Right
// after a Step it lies in the future, and it is no later than the earliest need.
func (u *Unit) Deadline() (at Instant, ok bool) {
	earliest := func(t Instant) {
		if t != 0 && (at == 0 || t < at) {
			at = t
		}
	}
	for i := range u.Instances {
		in := &u.Instances[i]
		for j := range in.Runs {
			earliest(in.Runs[j].Deadline)
		}
		earliest(u.relief(in))
		if len(in.Runs) == 0 {
			earliest(in.Until)
		}
		if in.Flushed || u.flushable(i+1) {
			earliest(in.FlushAt)
		}
		earliest(in.EmptyBy)
	}
	return at, at != 0
}

// Empty reports whether the unit has no run at all, not even a leaving one.
func (u *Unit) Empty() bool {
	for i := range u.Instances {
		if len(u.Instances[i].Runs) > 0 {
			return false
		}
	}
	return true
}

// EndedForGood reports whether the unit is wished up and will yet never run again
// by itself: every instance has ended for good. Key: service.essential.
func (u *Unit) EndedForGood() bool {
	for i := range u.Instances {
		if !u.Instances[i].Ended || len(u.Instances[i].Runs) > 0 {
			return false
		}
	}
	return u.Up && len(u.Instances) > 0
}

// wished reports whether instance n should be served at all.
func (u *Unit) wished(n int) bool { return u.Up && n <= u.Spec.Instances }

// instance returns instance n, or nil if there is none.
func (u *Unit) instance(n int) *Instance {
	if n < 1 || n > len(u.Instances) {
		return nil
	}
	return &u.Instances[n-1]
}

// run returns a run by instance and generation, or nil: old news is dropped.
func (u *Unit) run(n int, gen uint64) *Run {
	if in := u.instance(n); in != nil {
		for i := range in.Runs {
			if in.Runs[i].Gen == gen {
				return &in.Runs[i]
			}
		}
	}
	return nil
}

// attended reports whether a run serves or is about to. A leaving one does not count.
func (in *Instance) attended() bool {
	for i := range in.Runs {
		if in.Runs[i].live() {
			return true
		}
	}
	return false
}

// relief is when a ready run may leave, as its successor has been ready long enough; 0
// where none waits for that.
func (u *Unit) relief(in *Instance) Instant {
	if n := len(in.Runs); n < 2 || in.Runs[n-1].State != Ready || in.Runs[n-2].State != Ready || u.Spec.Exclusive {
		return 0
	}
	return in.Runs[len(in.Runs)-1].ReadyAt.Add(u.Spec.Overlap)
}

// ready reports whether a run serves.
func (in *Instance) ready() bool {
	for i := range in.Runs {
		if in.Runs[i].State == Ready {
			return true
		}
	}
	return false
}

// live reports whether the run is on its way or serving, and not leaving.
func (r *Run) live() bool { return r.State == Starting || r.State == Ready }

// told reports whether we have sent it the stop signal, or should have: everybody
// who leaves has been told, except those who left by themselves.
func (r *Run) told() bool { return r.Asked || r.Fault != "" }
