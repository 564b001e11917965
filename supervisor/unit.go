package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
)

// A unit is what the supervisor knows of one unit. What it decides by stands in
// machine and is saved; the rest is descriptors and facts for people.
type unit struct {
	conf       *units.Unit
	machine    *machine.Unit
	leaving    []*socket                  // still held, and about to be released
	sockets    []*socket                  // set by setSockets; in the order services get them: file order, then instance
	stored     []*stored                  // what its services have given us to keep, in the order in which it came
	groups     []*group                   // of sockets per instance, where they can be steered
	runs       map[uint64]*run            // by generation; until the log has been read to its end
	reading    chan struct{}              // has room for the one run whose environment_files are being read; nil: no run ever had any
	stopSignal syscall.Signal             // of the last service it had
	begun      bool                       // it has been started, or was taken up as one that had
	removed    bool                       // configuration has it no more: forgotten when nothing is left
	heads      map[int]int8               // by instance: the seat that gets what is new; nil without seats
	looks      map[int]context.CancelFunc // by instance: while its queue is looked at, whether it is empty

	canary    *canary       // under way; nil: none
	canaryEnd string        // how the last one ended
	starts    []int         // per instance, for people
	since     []time.Time   // per instance: when its condition changed
	lastExit  []ExitStatus  // per instance
	exits     [][]ExitCount // per instance
	codes     []endCode     // per instance
	closed    int           // connections that were closed with queues that could not be moved, since this supervisor began

	facts map[uint64]savedFact // by generation, of runs of a supervisor before us
	ends  map[uint64]*end      // in safe mode, by generation: of runs that nobody has parted from
	told  bool                 // in safe mode: its runs were told to leave

	at    machine.Instant // its appointment in the agenda
	place int             // where in the heap, from 1; 0: not there

	savedConf    *units.Unit     // conf as it was saved
	savedSockets json.RawMessage // sockets as they are saved; nil: to be made again
	before       []byte          // until it has been resumed: the state that a supervisor before us has saved
	wished       wish            // as it is on record
	heard        []heard         // the last errands, oldest first

	published atomic.Pointer[UnitStatus]
}

// A socket is one held descriptor.
type socket struct {
	held     string // the name the keeper holds it under
	name     string // LISTEN_FDNAMES
	addr     units.Address
	instance int  // 0: shared by all
	seat     int8 // which of its instance's two
	deaf     bool // its instance retires: see retire
	fd       int
	real     string // the address as bound: port 0 has become a number
	path     *sys.UnixPath
	key      uint64       // its watch key; 0 if it never was watched
	options  *sys.Options // of its table in the unit file
	inode    uint64
	others   map[string]uint64 // units that had it before: their runs up to this generation may hold it
	lost     string            // why nobody can reach it by its path; ""
	eyed     sys.FileID        // the file of its path that is watched
}

// A run is one process, from the moment it is asked for until its exit has been
// acknowledged and its log read.
type run struct {
	id       keeper.ID
	unit     *unit
	pid      int
	asked    time.Time // when it was spawned
	ready    time.Time
	unread   context.CancelFunc // while its environment_files are being read; else nil
	notify   int                // descriptor; -1 when released
	notified uint64
	log      int
	logEnd   int // where it writes, so that its end wakes nobody before the news of it; 0: not open here
	logKey   uint64
	logDone  bool
	rest     []byte // an unfinished line that a supervisor before us had read
	exited   bool
	status   string // STATUS=
	errno    int    // ERRNO=
	door     int    // its private socket, if it has a readiness gate that asks on one; else 0
	gate     *gate  // asks whether it is ready; nil: nobody does
	refused  int    // notify messages that did not count
	user     int    // whom its process was started as
	seat     int8   // which of its instance's two sockets it has, with flows
}

func newUnit(conf *units.Unit) *unit {
	u := &unit{conf: conf, runs: map[uint64]*run{}, looks: map[int]context.CancelFunc{}}
	u.machine = machine.New(machineSpec(conf))
	u.stopSignal = syscall.SIGTERM
	if conf.Service != nil {
		u.stopSignal = conf.Service.StopSignal
	}
	u.resize()
	return u
}

// resize makes room for what people want to know of each instance.
func (u *unit) resize() {
	n := len(u.machine.Instances)
	for len(u.starts) < n {
		u.starts = append(u.starts, 0)
		u.since = append(u.since, time.Now())
		u.lastExit = append(u.lastExit, ExitStatus{})
		u.exits = append(u.exits, nil)
		u.codes = append(u.codes, endCode{})
	}
}

// instances is how many there are to be: what the operator said, else the unit file.
func (u *unit) instances() int {
	switch {
	case u.conf.Service == nil:
		return 1
	case u.machine.Scaled:
		return u.machine.Spec.Instances
	}
	return u.conf.Service.Instances
}

// instancesIn is how many a unit file asks for.
func instancesIn(conf *units.Unit) int {
	if conf.Service == nil {
		return 1
	}
	return conf.Service.Instances
}

// socketsOf are the sockets an instance is given, in file order.
func (u *unit) socketsOf(instance int) []*socket {
	var mine []*socket
	for _, k := range u.sockets {
		if k.instance == 0 || k.instance == instance {
			mine = append(mine, k)
		}
	}
	return mine
}

// watches says whether a caller at the sockets of an instance, or, for 0, at the shared
// ones, is waited for.
func (u *unit) watches(instance int) bool {
	if instance == 0 {
		return u.machine.Watched
	}
	return instance <= len(u.machine.Instances) && u.machine.Instances[instance-1].Watched
}

func (u *unit) setSockets(sockets []*socket) {
	u.sockets, u.savedSockets = sockets, nil
}

// has says whether a socket is one of the unit's, or was and is not released yet.
func (u *unit) has(k *socket) bool {
	return slices.Contains(u.sockets, k) || slices.Contains(u.leaving, k)
}

// gone: configuration has it no more, and nothing is left of it, not even output.
func (u *unit) gone() bool { return u.removed && u.machine.Empty() && len(u.runs) == 0 }

// released: the sockets that were leaving have been released.
func (u *unit) released() {
	if u.leaving != nil {
		u.leaving, u.savedSockets = nil, nil
	}
}

// run finds a generation's run, or nil.
func (u *unit) run(id keeper.ID) *run {
	r := u.runs[id.Gen]
	if r == nil || r.id != id {
		return nil
	}
	return r
}

// pidOf is the process of a generation; 0 if none is known.
func (u *unit) pidOf(gen uint64) int {
	if r := u.runs[gen]; r != nil {
		return r.pid
	}
	return 0
}

// machineRun finds a generation in the machine, or nil.
func (u *unit) machineRun(id keeper.ID) *machine.Run {
	if id.Instance < 1 || id.Instance > len(u.machine.Instances) {
		return nil
	}
	runs := u.machine.Instances[id.Instance-1].Runs
	for i := range runs {
		if runs[i].Gen == id.Gen {
			return &runs[i]
		}
	}
	return nil
}

// asked says whether a run leaves because we have told it to.
func (u *unit) asked(id keeper.ID) bool {
	m := u.machineRun(id)
	return m != nil && m.Asked
}

// machineSpec is what the unit says, as far as decisions depend on it.
func machineSpec(conf *units.Unit) machine.Spec {
	sv := conf.Service
	if sv == nil {
		return machine.Spec{Instances: 1, OnDemand: true} // never started: the sockets are held, no more
	}
	spec := machine.Spec{
		Instances: sv.Instances,
		OnDemand:  sv.Start == units.Demand,
		Notify:    sv.Ready == units.ReadyNotify || sv.Gate != nil,

		StartTimeout: sv.StartTimeout,
		StopTimeout:  sv.StopTimeout,
		Watchdog:     sv.Watchdog,
		Restart:      machine.Restart(sv.Restart),
		Delay:        sv.RestartDelay,
		DelayMax:     sv.RestartDelayMax,
		Reset:        sv.RestartReset,
	}
	spec.Exclusive, spec.Step, spec.Overlap = !sv.Overlap, sv.Step, sv.OverlapTime
	for _, k := range conf.Sockets {
		spec.PerInstance = spec.PerInstance || k.PerInstance
		spec.Shared = spec.Shared || !k.PerInstance
	}
	return spec
}

// where says what a socket is for people: web: http tcp://127.0.0.1:8080.
func (k *socket) where() string {
	var b strings.Builder
	b.WriteString(k.addr.Network + "://" + k.real)
	if k.instance > 0 {
		fmt.Fprintf(&b, " @%d", k.instance)
	}
	return b.String()
}
