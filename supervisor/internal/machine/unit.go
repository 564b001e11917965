package machine

import "time"

// An Instant is nanoseconds on CLOCK_BOOTTIME: a saved deadline means the same
// moment to the next supervisor. Zero is "never" or "not yet".
type Instant int64

// Add returns the instant d later.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

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
	Delay    time.Duration // before the first restart; doubles with every failure in a row
	DelayMax time.Duration // the delay grows no further
	Reset    time.Duration // failures are forgotten when a run has been ready that long
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
	Instances []Instance // by number, Instances[0] is number 1
	Called    bool       // somebody waits on a shared socket and nobody has answered
	Watched   bool       // we have asked to hear of a connection on the shared sockets
	LastGen   uint64     // generations are per unit and never used again
}

// An Instance is a numbered place for a process. Most of the time it holds one
// run, during a replacement two, never more.
type Instance struct {
	Runs    []Run   // oldest first
	Fails   int     // failures in a row
	Until   Instant // no start before; 0 if none is waiting
	Called  bool    // somebody has connected, or policy wants it back, and nobody has answered
	Watched bool    // we have asked to hear of a connection on its own sockets
	Ended   bool    // ended for good: policy starts it no more until an operator asks
	Failed  bool    // with Ended: its last run failed
	Because string  // what its last run ended with, for people; "" if nothing yet
}

// A Run is one process in an instance, from fork to reap.
type Run struct {
	Gen      uint64
	State    State
	Asked    bool          // leaving because we said so: its exit is no failure
	Stale    bool          // to be replaced; stays until relieved
	Because  string        // why it was told to leave, for people
	Watchdog time.Duration // as the run has changed it; else the Spec's
	ReadyAt  Instant       // 0 before readiness
	Deadline Instant       // when patience ends; 0 is never
}

// State is how far a run has come. It goes forward only; it may leave from any.
type State string

const (
	Starting State = "starting" // spawned, not yet ready
	Ready    State = "ready"
	Draining State = "draining" // told to leave, may finish
	Killing  State = "killing"  // SIGKILL has been sent to all of it
)
