package supervisor

import (
	"encoding/json"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/sys"
)

// A savedUnit is what the keeper keeps of a unit: enough for another supervisor to
// go on.
type savedUnit struct {
	Version int
	Machine *machine.Unit
	Sockets json.RawMessage // []savedSocket
	Removed bool            `json:",omitempty"`
	Canary  *canary         `json:",omitempty"`
}

// A savedSocket says what a held descriptor is for.
type savedSocket struct {
	Held             string
	Name             string
	Network, Address string
	Instance         int           `json:",omitempty"`
	Real             string        `json:",omitempty"`
	Path             *sys.UnixPath `json:",omitempty"`
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
		s.log.Error("unfinished line not saved", "unit", src.unit, "instance", src.instance, "gen", src.gen, "err", err)
	}
}

// unsave forgets a unit.
func (s *Supervisor) unsave(u *unit) {
	s.keeper.Save(u.conf.Name, nil)
	s.keeper.Save(confState+u.conf.Name, nil)
}

func (u *unit) saveSockets() []savedSocket {
	sockets := make([]savedSocket, len(u.sockets))
	for i, k := range u.sockets {
		sockets[i] = savedSocket{k.held, k.name, k.addr.Network, k.addr.Address, k.instance, k.real, k.path}
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
	state, err := json.Marshal(savedUnit{stateVersion, u.machine, u.savedSockets, u.removed, u.canary})
	if err != nil {
		return err
	}
	return s.keeper.Save(u.conf.Name, state)
}
