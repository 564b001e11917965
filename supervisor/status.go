package supervisor

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/sys"
)

// A UnitStatus is what GET /v1/units/NAME says. Its keys are stable.
type UnitStatus struct {
	Name      string           `json:"name"`
	File      string           `json:"file"`
	Up        bool             `json:"up"`    // what the operator wishes
	State     string           `json:"state"` // of all instances in one word: see Summary
	Start     string           `json:"start,omitempty"`
	Essential bool             `json:"essential,omitempty"`
	Safe      string           `json:"safe_mode,omitempty"`  // why sockd changes nothing at the moment, and what to do
	Paused    bool             `json:"paused,omitempty"`     // the operator wishes that nobody is started, until resume
	Canary    int              `json:"canary,omitempty"`     // instances of the new version that are on trial: the last ones
	CanaryEnd string           `json:"canary_end,omitempty"` // how the last trial ended
	Removed   bool             `json:"removed,omitempty"`    // configuration has it no more; it is leaving
	Instances []InstanceStatus `json:"instances"`
	Sockets   []SocketStatus   `json:"sockets"`
	LastGen   uint64           `json:"last_generation"`

	// RuntimeDir is the folder of a supervisor that is not on the usual one: `sockd status` says so.
	RuntimeDir string `json:"runtime_dir,omitempty"`

	trial  canary
	wanted int // instances that there are to be, without a canary's
	closed int // see unit
}

// An InstanceStatus says how one instance is.
type InstanceStatus struct {
	Instance int         `json:"instance"`
	State    string      `json:"state"` // stopped idle starting ready draining backoff ended failed
	Since    time.Time   `json:"since"`
	Because  string      `json:"because,omitempty"`
	Starts   int         `json:"starts"`
	Fails    int         `json:"failures_in_a_row,omitempty"`
	NextIn   string      `json:"next_start_in,omitempty"` // backoff: when it was published
	Runs     []RunStatus `json:"runs"`
	Stored   []string    `json:"stored,omitempty"` // names in the descriptor store, in the order in which they came
	LastExit *ExitStatus `json:"last_exit,omitempty"`
	Exits    []ExitCount `json:"exits,omitempty"` // of all its processes that have ended
	until    machine.Instant
}

// A RunStatus says how one process is.
type RunStatus struct {
	Gen     uint64    `json:"generation"`
	Pid     int       `json:"pid,omitempty"`
	State   string    `json:"state"` // starting ready draining killing
	Started time.Time `json:"started"`
	Stale   bool      `json:"to_be_replaced,omitempty"`
	Because string    `json:"because,omitempty"` // why it was told to leave
	Status  string    `json:"status,omitempty"`  // STATUS= as it said
	Errno   int       `json:"errno,omitempty"`   // ERRNO= as it said
	Unready string    `json:"unready,omitempty"` // starting: what its readiness gate has found wrong
	Kept    string    `json:"kept,omitempty"`    // why the last replacement of it came to nothing
}

// A SocketStatus says how one held socket is. Queue, backlog and drops are read
// when the status is asked for.
type SocketStatus struct {
	Unit     string  `json:"unit"`
	Name     string  `json:"name"`
	Network  string  `json:"network"`
	Address  string  `json:"address"` // as bound
	Instance int     `json:"instance,omitempty"`
	Inode    uint64  `json:"inode"`
	Held     string  `json:"held"`
	Steering string  `json:"steering,omitempty"`       // ebpf, classic-bpf or hash: how a sibling's share of new connections is set
	Lacks    string  `json:"steering_lacks,omitempty"` // what clients miss for want of a better way, and what would mend it
	Weight   int     `json:"weight"`                   // of siblings: 0 gets nothing new
	Flows    string  `json:"flows,omitempty"`          // of udp: sticky, quic, or "not kept" where the unit file asks for it in vain
	Seat     int8    `json:"seat,omitempty"`           // with flows an instance has two, 0 and 1, for the two processes of a replacement
	Retiring bool    `json:"retiring,omitempty"`       // of an instance that is one too many, where nothing is steered: who comes now is dropped, and tries again
	Watched  bool    `json:"watched"`                  // a connection would start the service
	Queued   int     `json:"queued"`
	Backlog  int     `json:"backlog,omitempty"`
	Drops    uint64  `json:"drops,omitempty"`
	Steered  *uint64 `json:"steered,omitempty"` // connections or datagrams sent to this sibling, where somebody counts
	Error    string  `json:"error,omitempty"`   // why nobody can reach it: its path is lost
	fd       int
	group    *group
}

// A view is every unit, as readers see them: they never wait for the loop, and of
// a unit they touch only what is published.
type view []shown

type shown struct {
	name string
	unit *unit
}

// publish shows a unit as it is now.
func (s *Supervisor) publish(u *unit) {
	u.published.Store(s.statusOf(u))
	s.changes.ring()
}

// publishUnits shows which units there are.
func (s *Supervisor) publishUnits() {
	var v view
	for _, u := range s.sorted() {
		v = append(v, shown{u.conf.Name, u})
	}
	s.view.Store(&v)
	s.stale = false
	s.changes.ring()
}

func (s *Supervisor) sorted() []*unit {
	names := slices.Sorted(maps.Keys(s.units))
	all := make([]*unit, len(names))
	for i, name := range names {
		all[i] = s.units[name]
	}
	return all
}

func (s *Supervisor) statusOf(u *unit) *UnitStatus {
	st := &UnitStatus{Name: u.conf.Name, File: u.conf.File, Up: u.machine.Up, Removed: u.removed, Safe: s.safeText(), LastGen: u.machine.LastGen,
		Instances: []InstanceStatus{}, Sockets: make([]SocketStatus, 0, len(u.sockets))}
	if sv := u.conf.Service; sv != nil {
		st.Start, st.Essential = string(sv.Start), sv.Essential
		u.resize()
		for i := range u.machine.Instances {
			st.Instances = append(st.Instances, s.instanceStatus(u, i))
		}
	}
	st.Paused, st.wanted, st.closed = u.machine.Paused, u.instances(), u.closed
	if st.CanaryEnd = u.canaryEnd; u.canary != nil {
		st.Canary, st.trial, st.wanted = u.canary.Count, *u.canary, u.canary.Base
	}
	for _, k := range u.sockets {
		ks := SocketStatus{Unit: u.conf.Name, Name: k.name, Network: k.addr.Network, Address: k.real,
			Instance: k.instance, Inode: k.inode, Held: k.held, Watched: u.watches(k.instance), Weight: 1, Retiring: k.deaf, Error: k.lost, fd: k.fd}
		ks.Flows = u.flows(k)
		if g := u.groupOf(k); g != nil {
			ks.Steering, ks.Seat, ks.group = g.steer.Level().String(), k.seat, g
			if k.instance <= len(u.machine.Weights) {
				ks.Weight = u.machine.Weights[k.instance-1]
			}
			if g.seats == 2 && k.seat != u.heads[k.instance] {
				ks.Weight = 0
			}
		}
		st.Sockets = append(st.Sockets, ks)
	}
	st.State = Summary(st)
	return st
}

func (s *Supervisor) instanceStatus(u *unit, i int) InstanceStatus {
	in := &u.machine.Instances[i]
	st := InstanceStatus{Instance: i + 1, State: string(u.machine.Condition(i + 1)), Since: u.since[i], Because: in.Because,
		Starts: u.starts[i], Fails: in.Fails, Runs: make([]RunStatus, 0, len(in.Runs)), until: in.Until}
	if in.Until > 0 && st.State == string(machine.Backoff) {
		st.NextIn = max(0, time.Duration(in.Until-s.now())).Round(time.Millisecond).String()
	}
	if last := u.lastExit[i]; last.Gen != 0 {
		st.LastExit, st.Exits = &last, u.exits[i]
	}
	for _, e := range u.storedOf(i + 1) {
		st.Stored = append(st.Stored, e.name)
	}
	for _, m := range in.Runs {
		rs := RunStatus{Gen: m.Gen, State: string(m.State), Stale: m.Stale, Because: m.Because, Kept: m.Kept}
		if m.State == machine.Starting {
			rs.Unready = m.Unready
		}
		if r := u.runs[m.Gen]; r != nil {
			rs.Pid, rs.Started, rs.Status, rs.Errno = r.pid, r.asked, r.status, r.errno
		}
		st.Runs = append(st.Runs, rs)
	}
	return st
}

// Summary is a unit's state in one word: that of its instances if they agree, else
// the one that people should hear of first. A unit without a service is "holding".
func Summary(st *UnitStatus) string {
	if len(st.Instances) == 0 {
		return "holding"
	}
	for _, state := range []machine.Condition{machine.EndedFailed, machine.Backoff, machine.IsPaused, machine.IsStarting, machine.IsDraining,
		machine.IsReady, machine.Idle, machine.EndedWell} {
		for _, in := range st.Instances {
			if in.State == string(state) {
				return in.State
			}
		}
	}
	return string(machine.Stopped)
}

// Units returns every unit's status, by name. It may be called from anywhere, at
// any time, and never waits.
func (s *Supervisor) Units() []UnitStatus {
	all := []UnitStatus{}
	var queues sys.Queues
	for _, st := range s.published() {
		all = append(all, st.fresh(s, &queues))
	}
	return all
}

// published is every unit's status as it was published.
func (s *Supervisor) published() []*UnitStatus {
	var all []*UnitStatus
	if v := s.view.Load(); v != nil {
		for _, u := range *v {
			if st := u.unit.published.Load(); st != nil {
				all = append(all, st)
			}
		}
	}
	return all
}

// Unit returns one unit's status, and whether there is such a unit.
func (s *Supervisor) Unit(name string) (UnitStatus, bool) {
	if st := s.shown(name); st != nil {
		return st.fresh(s, new(sys.Queues)), true
	}
	return UnitStatus{}, false
}

// shown is one unit's status as it was published, or nil.
func (s *Supervisor) shown(name string) *UnitStatus {
	v := s.view.Load()
	if v == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(*v, name, func(u shown, name string) int { return strings.Compare(u.name, name) })
	if !ok {
		return nil
	}
	return (*v)[i].unit.published.Load()
}

// fresh is a copy with what the kernel says of the queues now, and how long a
// backoff still lasts.
func (st *UnitStatus) fresh(s *Supervisor, queues *sys.Queues) UnitStatus {
	c := *st
	c.Sockets = slices.Clone(st.Sockets)
	for i := range c.Sockets {
		k := &c.Sockets[i]
		queued, backlog, drops, err := queues.Queue(k.fd)
		if err != nil || inodeOf(k.fd) != k.Inode { // released meanwhile
			continue
		}
		k.Queued, k.Backlog, k.Drops = queued, backlog, drops
	}
	for i := range c.Sockets {
		if k := &c.Sockets[i]; k.group != nil {
			k.Lacks = k.group.lacks()
		}
	}
	readCounts(c.Sockets)
	c.Instances = slices.Clone(st.Instances)
	for i := range c.Instances {
		if in := &c.Instances[i]; in.NextIn != "" {
			in.NextIn = max(0, time.Duration(in.until-s.now())).Round(time.Millisecond).String()
		}
	}
	return c
}
