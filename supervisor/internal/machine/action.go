package machine

import (
	"slices"
	"time"
)

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
	// Steer sets how new connections are shared out between the instances' own sockets:
	// Weights[0] is the share of instance 1. Never are all 0. It comes first of all actions.
	Steer struct{ Weights []int }
	// Flush moves what waits in the queues of the instance's own sockets, handshakes
	// under way included, to its siblings, as Weights has it.
	Flush struct{ Instance int }
	// AwaitEmpty asks to hear Emptied once, when those queues were empty in three looks, 1 ms apart.
	// What was asked for before and not heard is void.
	AwaitEmpty struct{ Instance int }
	// Report tells people, status and metrics that an instance's condition has changed.
	Report struct {
		Instance int
		Gen      uint64 // the run that changed it; 0 if none
		From, To Condition
		Because  string        // "connection", "exit status 1", "start timeout 30s"; "" if plain
		For      time.Duration // backoff: how long; ready: how long it took since spawn is the caller's business
	}
)

func (Watch) action()      {}
func (Unwatch) action()    {}
func (Spawn) action()      {}
func (Terminate) action()  {}
func (Kill) action()       {}
func (Steer) action()      {}
func (Flush) action()      {}
func (AwaitEmpty) action() {}
func (Report) action()     {}

// Thin takes what several steps want done, one after the other, before anything of it was
// done, and leaves out each Steer that another overtakes, with nothing done in between
// but reports.
func Thin(steps [][]Action) {
	overtaken := false
	for i := len(steps) - 1; i >= 0; i-- {
		for j := len(steps[i]) - 1; j >= 0; j-- {
			switch steps[i][j].(type) {
			case Report:
			case Steer:
				if overtaken {
					steps[i] = slices.Delete(steps[i], j, j+1)
				}
				overtaken = true
			default:
				overtaken = false
			}
		}
	}
}

// Condition is what people call an instance's state. It is derived, never stored.
type Condition string

const (
	Stopped     Condition = "stopped"  // not wished, nobody there
	Idle        Condition = "idle"     // waits for a caller
	IsStarting  Condition = "starting" // a run is on the way and none is ready
	IsReady     Condition = "ready"    // a run serves
	IsDraining  Condition = "draining" // the last run leaves or is being killed
	Backoff     Condition = "backoff"  // waits before the next start
	IsPaused    Condition = "paused"   // nobody there, and nobody is started until resume
	EndedWell   Condition = "ended"    // ended for good, successfully
	EndedFailed Condition = "failed"   // ended for good, with a failure
)
