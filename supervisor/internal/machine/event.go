package machine

import "time"

// An Event is one piece of news, or one wish. Hearing one twice is harmless.
type Event interface{ event() }

// Wishes.
type (
	// Start wishes the unit up, and forgives: failures are forgotten, instances
	// that had ended for good start again.
	Start struct{}
	// Stop wishes the unit down.
	Stop struct{}
	// Replace is a restart: it replaces every run whose generation is at most Upto, gracefully:
	// the new run is ready before the old one is told to leave. It forgives as
	// Start does, and starts instances that had ended for good.
	Replace struct{ Upto uint64 }
	// Respec brings a new specification. Runs up to generation Upto are replaced
	// as Replace does; 0 replaces none. Instances are added or drained away.
	Respec struct {
		Spec Spec
		Upto uint64
		// Scaled says that Spec.Instances is still what Scale asked for: the
		// specification changed in another way, not in its file.
		Scaled bool
	}
	// Scale wishes another number of instances, at least 1, until the next Respec.
	Scale struct{ Instances int }
	// Pause wishes that nobody is started and nobody watched for: clients wait in
	// the queues. Who lives goes on, and may end. It outlives Stop and Start.
	Pause struct{}
	// Resume takes that back.
	Resume struct{}
)

// News. Instance counts from 1; where Connected says 0 it means the shared sockets.
type (
	// Connected: a connection or datagram waits and the watch has disarmed itself.
	Connected struct{ Instance int }
	// Execed: the run's program is running.
	Execed struct {
		Instance int
		Gen      uint64
	}
	// SpawnFailed: there is no process. Stands in place of Exited.
	SpawnFailed struct {
		Instance int
		Gen      uint64
		Because  string  // "exec: no such file or directory"
		Jitter   float64 // in [0,1), drawn by the caller
	}
	// Notified: the run has spoken on its notify socket.
	Notified struct {
		Instance  int
		Gen       uint64
		Ready     bool          // READY=1
		Reloading bool          // RELOADING=1: for status only; READY=1 follows
		Stopping  bool          // STOPPING=1: leaving by itself; the stop timeout runs
		Alive     bool          // WATCHDOG=1
		Trip      bool          // WATCHDOG=trigger: as if the watchdog had run out
		Watchdog  time.Duration // WATCHDOG_USEC=; 0 leaves it
		Extend    time.Duration // EXTEND_TIMEOUT_USEC=; 0 leaves it
		Unready   string        // what a readiness gate has found wrong, for people; "" leaves it
	}
	// Exited: no process of the run is left.
	Exited struct {
		Instance int
		Gen      uint64
		Status   Status
		Jitter   float64 // in [0,1), drawn by the caller
	}
	// Emptied: the queue of the instance's own sockets, which AwaitEmpty asked about, was empty in
	// three looks in a row.
	Emptied struct{ Instance int }
	// Tick: the time the unit's Deadline named has come. Harmless at any time.
	Tick struct{}
)

func (Start) event()       {}
func (Stop) event()        {}
func (Replace) event()     {}
func (Respec) event()      {}
func (Scale) event()       {}
func (Pause) event()       {}
func (Resume) event()      {}
func (Connected) event()   {}
func (Execed) event()      {}
func (SpawnFailed) event() {}
func (Notified) event()    {}
func (Exited) event()      {}
func (Emptied) event()     {}
func (Tick) event()        {}
