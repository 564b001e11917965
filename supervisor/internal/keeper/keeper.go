// Package keeper holds what must not be lost: descriptors, children, saved state.
//
// It decides nothing, reads no unit file and opens no network socket. The one
// thing to know before calling it: an Event stays in the Inventory, and its run
// stays listed, until it has been acknowledged.
package keeper

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// A Keeper holds descriptors by name, runs processes and keeps saved states. The
// same interface is served by Local in this process, or by a process of its own.
type Keeper interface {
	// Hold keeps fd under name, and owns it from then on: the caller may go on
	// using fd until Release and must not close it. Holding a name again replaces
	// and closes what was held under it. Names say what the descriptor is for:
	// listen/web/http, listen/web/http@2, notify/web@2.7, log/web@2.7, control.
	Hold(name string, fd int) error
	// Release closes what is held under name; an unknown name is no error.
	Release(name string) error
	// Settle returns when everything asked before has been done. An error says what
	// could not be held since the last Settle, though Hold had returned nil; it is not
	// held, and whoever wanted it releases it.
	Settle() error
	// Spawn starts a process. It does not wait: Execed or SpawnFailed follows as
	// an Event, later Exited. An error means that nothing was started and no
	// event will follow; spawning an ID that is listed already is such an error.
	Spawn(id ID, p Process) error
	// Signal sends sig to the run's main process, and SIGCONT after it where sig
	// would else wait behind a stop. SIGKILL goes to every process of the run. A
	// run that has ended or is unknown is no error.
	Signal(id ID, sig unix.Signal) error
	// Adopt lists a run that lives on though the keeper that started it was killed,
	// and follows it from here on. An error means that it is not listed.
	Adopt(s Survivor) error
	// SetMain makes pid, a living process of the run, its main process (MAINPID=).
	SetMain(id ID, pid int) error
	// Save keeps state for unit until it is replaced; nil forgets it.
	Save(unit string, state []byte) error
	// Inventory lists all that is held: what a new supervisor begins with.
	Inventory() (Inventory, error)
	// Events is where news arrives, in order. It never closes while the keeper lives.
	Events() <-chan Event
	// Acknowledge says that ev has been saved and acted upon. An acknowledged
	// Exited or SpawnFailed strikes the run off the list.
	Acknowledge(ev Event) error
	// Close releases everything; it does not touch processes.
	Close() error
}

// An ID names a run: web@2.7 is generation 7 in instance 2 of unit web.
type ID struct {
	Unit     string
	Instance int
	Gen      uint64
}

func (id ID) String() string {
	return id.Unit + "@" + strconv.Itoa(id.Instance) + "." + strconv.FormatUint(id.Gen, 10)
}

// A Process says what to start and with what. Argv[0] with a slash is the program
// (relative to Dir); without one it is looked up in the PATH of Env.
type Process struct {
	Argv     []string
	Env      []string // complete, but for what only the child can know
	Dir      string
	Sockets  []string // names of held descriptors: descriptor 3 and up, in this order
	Output   int      // becomes 1 and 2 of the child; duplicated, the caller closes its own. -1: /dev/null
	PidEnv   []string // variables the child sets to its own pid: LISTEN_PID, WATCHDOG_PID
	PidfdEnv []string // variables it sets to the inode of its pidfd, before Linux 6.9 to nothing: LISTEN_PIDFDID

	Credential *Credential // nil: as sockd
	Umask      int         // -1: as sockd
	CPU        int         // the one to run on, counted from 1; 0: as sockd
}

// A Credential is the identity a process runs under.
type Credential struct {
	UID, GID uint32
	Groups   []uint32 // supplementary
}

// Kind says what an Event is about.
type Kind string

const (
	Execed      Kind = "execed"
	SpawnFailed Kind = "spawn-failed"
	Exited      Kind = "exited" // no process of the run is left
)

// An Event is news of one run.
type Event struct {
	ID     ID
	Kind   Kind
	Pid    int    // Execed, Exited
	Stage  string // SpawnFailed: the step of preparation that failed: "exec", "directory", "user", "cpu", "fork"
	Err    string // SpawnFailed: why; Exited: why nobody knows how, and then Code is -1
	Code   int    // Exited: exit code …
	Signal int    // … or, if not 0, the signal that killed it
	Core   bool   // Exited: it left a core
	Killed int    // Exited: how many other processes of the run had to be killed, as far as known
}

// An Inventory is all that a keeper holds.
type Inventory struct {
	Descriptors map[string]int
	Children    []Child           // by ID; also the dead not yet acknowledged
	States      map[string][]byte // by unit
}

// A Child is a listed run.
type Child struct {
	ID      ID
	Pid     int         // 0 before fork has succeeded
	Running bool        // exec has succeeded and its exit has not been seen
	Last    unix.Signal // the last signal sent to it through Signal; 0 if none
	Pending []Event     // not yet acknowledged, oldest first
}
