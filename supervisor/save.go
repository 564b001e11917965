package supervisor

import (
	"encoding/json"

	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/sys"
)

// A savedUnit is what the keeper keeps of a unit: enough for another supervisor to
// go on.
type savedUnit struct {
	Version int
	Machine *machine.Unit
	Sockets json.RawMessage // []savedSocket
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

func (s *Supervisor) save(u *unit) error {
	if u.savedSockets == nil {
		sockets := make([]savedSocket, len(u.sockets))
		for i, k := range u.sockets {
			sockets[i] = savedSocket{k.held, k.name, k.addr.Network, k.addr.Address, k.instance, k.real, k.path}
		}
		var err error
		if u.savedSockets, err = json.Marshal(sockets); err != nil {
			return err
		}
	}
	state, err := json.Marshal(savedUnit{stateVersion, u.machine, u.savedSockets})
	if err != nil {
		return err
	}
	return s.keeper.Save(u.conf.Name, state)
}
