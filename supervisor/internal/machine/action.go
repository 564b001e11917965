package machine

import "time"

// An Action is one thing the supervisor must do, after it has saved the unit, in
// the order given. Doing one twice is harmless.
type Action interface{ action() }

type (
	// Watch asks to hear Connected once: of the shared sockets if Instance is 0,
	// else of that instance's own. If somebody waits already, it is heard at once.
	Watch struct{ Instance int }
	// Unwatch takes that back.
	Unwatch struct{ Instance int }
	// Spawn starts a process for the run.
	Spawn struct {
		Instance int
		Gen      uint64
	}
	// Terminate sends the stop signal to the run's main process. Abort asks for
	// SIGABRT instead, so that a hung program leaves a core.
	Terminate struct {
		Instance int
		Gen      uint64
		Abort    bool
	}
	// Kill sends SIGKILL to every process of the run.
	Kill struct {
		Instance int
		Gen      uint64
	}
	// Report tells people, status and metrics that an instance's condition has changed.
	Report struct {
		Instance int
		Gen      uint64 // the run that changed it; 0 if none
		From, To Condition
		Because  string        // "connection", "exit status 1", "start timeout 30s"; "" if plain
		For      time.Duration // backoff: how long; ready: how long it took since spawn is the caller's business
	}
)

func (Watch) action()     {}
func (Unwatch) action()   {}
func (Spawn) action()     {}
func (Terminate) action() {}
func (Kill) action()      {}
func (Report) action()    {}

// Condition is what people call an instance's state. It is derived, never stored.
type Condition string

const (
	Stopped     Condition = "stopped"  // not wished, nobody there
	Idle        Condition = "idle"     // waits for a caller
	IsStarting  Condition = "starting" // a run is on the way and none is ready
	IsReady     Condition = "ready"    // a run serves
	IsDraining  Condition = "draining" // the last run leaves or is being killed
	Backoff     Condition = "backoff"  // waits before the next start
	EndedWell   Condition = "ended"    // ended for good, successfully
	EndedFailed Condition = "failed"   // ended for good, with a failure
)
