package supervisor

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/sys"
)

// A savedUnit is what the keeper keeps of a unit: enough for another supervisor to
// go on.
type savedUnit struct {
	Version   int
	Machine   *machine.Unit
	Sockets   json.RawMessage // []savedSocket
	Removed   bool            `json:",omitempty"`
	Canary    *canary         `json:",omitempty"`
	CanaryEnd string          `json:",omitempty"`
	Heard     []heard         `json:",omitempty"`
	New       bool            `json:",omitempty"` // its life has not begun: sockets may be held, nothing was started

	// For people.
	LastCode int                  `json:",omitempty"` // the whole unit's: a version that knows no code of a place goes by it
	Places   []savedPlace         `json:",omitempty"` // per instance
	Runs     map[uint64]savedFact `json:",omitempty"` // by generation
}

// A savedPlace is what people want to know of an instance.
type savedPlace struct {
	Starts   int
	Since    time.Time
	LastExit *ExitStatus `json:",omitempty"`
	Exits    []ExitCount `json:",omitempty"`
	Code     endCode     `json:",omitzero"`
}

// A savedFact is what people want to know of a run, and whose word counts as its own.
type savedFact struct {
	Asked, Ready time.Time `json:",omitzero"`
	Status       string    `json:",omitempty"`
	Errno        int       `json:",omitempty"`
	User         *int      `json:",omitempty"` // that it runs as
	Seat         int8      `json:",omitempty"`
}

// A savedSocket says what a held descriptor is for.
type savedSocket struct {
	Held             string
	Name             string
	Network, Address string
	Instance         int               `json:",omitempty"`
	Seat             int8              `json:",omitempty"`
	Real             string            `json:",omitempty"`
	Path             *sys.UnixPath     `json:",omitempty"`
	Others           map[string]uint64 `json:",omitempty"`
}

// stateVersion is raised when a saved unit changes its meaning.
const stateVersion = 1

// confState is what the names of saved configurations begin with: conf/web beside
// web, since they change seldom and states often.
const confState = "conf/"

// saveConf keeps what the unit file said, for a supervisor that comes after us.
func (s *Supervisor) saveConf(u *unit) error {
	conf, err := json.Marshal(u.conf)
	if err != nil {
		return err
	}
	u.savedConf = u.conf
	return s.keeper.Save(confState+u.conf.Name, conf)
}

// restState is what the names of saved unfinished lines begin with.
const restState = "rest/"

// keepRest keeps a line whose end a run has not written yet.
func (s *Supervisor) keepRest(src source, rest []byte) {
	if len(rest) == 0 {
		rest = nil
	}
	id := keeper.ID{Unit: src.unit, Instance: src.instance, Gen: src.gen}
	if err := s.keeper.Save(restState+id.String(), rest); err != nil {
		s.log.Error("unfinished line not saved", "unit", src.unit, "instance", src.instance, "generation", src.gen, "err", err)
	}
}

// unsave forgets a unit; its configuration first, since one that has no state is new.
func (s *Supervisor) unsave(u *unit) {
	s.keeper.Save(confState+u.conf.Name, nil)
	s.keeper.Save(u.conf.Name, nil)
}

func (u *unit) saveSockets() []savedSocket {
	all := slices.Concat(u.sockets, u.leaving)
	sockets := make([]savedSocket, len(all))
	for i, k := range all {
		sockets[i] = savedSocket{k.held, k.name, k.addr.Network, k.addr.Address, k.instance, k.seat, k.real, k.path, k.others}
	}
	return sockets
}

func (s *Supervisor) save(u *unit) error {
	if u.savedSockets == nil {
		var err error
		if u.savedSockets, err = json.Marshal(u.saveSockets()); err != nil {
			return err
		}
		s.unrecorded = true
	}
	if u.savedConf != u.conf {
		if err := s.saveConf(u); err != nil {
			return err
		}
	}
	saved := savedUnit{Version: stateVersion, Machine: u.machine, Sockets: u.savedSockets, Removed: u.removed, New: !u.begun, Canary: u.canary, CanaryEnd: u.canaryEnd, Heard: u.heard}
	u.saveFacts(&saved)
	state, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	if bytes.Equal(u.before, state) {
		return nil
	}
	u.before = nil
	return s.keeper.Save(u.conf.Name, state)
}

// saveFacts notes what people want to know, of a unit that has ever been started.
func (u *unit) saveFacts(to *savedUnit) {
	to.LastCode = u.exitCode()
	if u.machine.LastGen == 0 {
		return
	}
	for i := range u.starts {
		p := savedPlace{Starts: u.starts[i], Since: u.since[i], Exits: u.exits[i], Code: u.codes[i]}
		if u.lastExit[i].Gen != 0 {
			p.LastExit = &u.lastExit[i]
		}
		to.Places = append(to.Places, p)
	}
	for gen, r := range u.runs {
		if !r.exited {
			if to.Runs == nil {
				to.Runs = map[uint64]savedFact{}
			}
			to.Runs[gen] = savedFact{r.asked, r.ready, r.status, r.errno, &r.user, r.seat}
		}
	}
}

// recallFacts takes them up again.
func (u *unit) recallFacts(from *savedUnit) {
	u.facts = from.Runs
	for i, p := range from.Places {
		if i < len(u.starts) {
			u.starts[i], u.since[i], u.exits[i] = p.Starts, p.Since, p.Exits
			if u.codes[i] = p.Code; p.Code.At == 0 {
				u.codes[i].Code = from.LastCode
			}
			if p.LastExit != nil {
				u.lastExit[i] = *p.LastExit
			}
		}
	}
}
