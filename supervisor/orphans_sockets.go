package supervisor

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

// The keeper records its runs (keeper.RecordName); what their sockets are for, and what
// operators have wished, only a supervisor knows. It writes that down beside it, when
// sockets or wishes come or go.

// socketsName is the file's name in the runtime folder.
const socketsName = "sockets"

// socketsVersion is raised when the file changes its meaning.
const socketsVersion = 1

type socketsRecord struct {
	Version int
	Boot    string
	Made    []string // folders made for the runtime folder
	Units   map[string]unitRecord
}

type unitRecord struct {
	Conf    string // sum of what the file said
	Sockets []savedSocket
	LastGen uint64 `json:",omitzero"`
	Wish    wish   `json:",omitzero"`
}

// A wish is what an operator has said of a unit that its file does not say.
type wish struct {
	Stopped, Paused bool
	Instances       int // 0: as many as the file says
}

// wish is what holds now. A canary's instances are nobody's wish: it ends with the keeper.
func (u *unit) wish() wish {
	if u.conf.Service == nil || !u.begun || u.removed {
		return wish{}
	}
	w := wish{Stopped: !u.machine.Up, Paused: u.machine.Paused}
	if u.machine.Scaled {
		if w.Instances = u.machine.Spec.Instances; u.canary != nil {
			w.Instances = u.canary.Base
		}
	}
	return w
}

// noteWish has a wish put on record, when it is another.
func (s *Supervisor) noteWish(u *unit) {
	if w := u.wish(); w != u.wished {
		u.wished, s.unrecorded = w, true
	}
}

func (r *socketsRecord) knows(unit, held string) bool {
	for _, k := range r.Units[unit].Sockets {
		if k.Held == held {
			return true
		}
	}
	return false
}

// confSum tells one configuration of a unit from another.
func confSum(conf *units.Unit) string {
	text, err := json.Marshal(conf)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// open makes a socket of a saved one and its descriptor.
func (k *savedSocket) open(fd int) *socket {
	return &socket{held: k.Held, name: k.Name, addr: units.Address{Network: k.Network, Address: k.Address},
		instance: k.Instance, seat: k.Seat, fd: fd, real: k.Real, path: k.Path, others: k.Others, inode: inodeOf(fd)}
}

// readSockets reads what a supervisor of this boot has written; else it is empty.
func readSockets(dir string) (*socketsRecord, error) {
	text, err := os.ReadFile(filepath.Join(dir, socketsName))
	if errors.Is(err, fs.ErrNotExist) {
		return &socketsRecord{}, nil
	}
	if err != nil {
		return nil, err
	}
	r := new(socketsRecord)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", socketsName, err)
	}
	if r.Version != socketsVersion {
		return nil, fmt.Errorf("%s: version %d, not %d", socketsName, r.Version, socketsVersion)
	}
	if r.Boot != sys.Boot() { // what it calls by name may be somebody else's by now; what it made may not
		r.Units = nil
	}
	return r, nil
}

// record writes down what the sockets are for, and what is wished.
func (s *Supervisor) record(dir *runtimeDir) {
	s.unrecorded = false
	if dir.path == "" {
		return
	}
	r := socketsRecord{Version: socketsVersion, Boot: sys.Boot(), Made: dir.made, Units: make(map[string]unitRecord, len(s.units))}
	for name, u := range s.units {
		r.Units[name] = unitRecord{confSum(u.conf), u.saveSockets(), u.machine.LastGen, u.wished}
	}
	text, err := json.Marshal(r)
	name := filepath.Join(dir.path, socketsName)
	if err == nil {
		err = os.WriteFile(name+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		s.log.Warn("sockets not on record: if the keeper is killed, its services will have to be ended", "err", err)
	}
}

// keepRecords makes the keeper write its own record too, from now on.
func (s *Supervisor) keepRecords(dir *runtimeDir) error {
	if dir.path == "" {
		return nil
	}
	s.record(dir)
	fd, err := unix.Open(dir.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := s.keeper.Hold(keeper.RecordHeld, fd); err != nil {
		unix.Close(fd)
		return err
	}
	return nil
}

// removeRecords leaves nothing behind.
func (d *runtimeDir) removeRecords(k keeper.Keeper) {
	k.Release(keeper.RecordHeld)
	for _, name := range []string{keeper.RecordName, keeper.RecordName + ".new", socketsName, socketsName + ".new"} {
		os.Remove(filepath.Join(d.path, name))
	}
}
