package supervisor

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

// The descriptor store: what a service gives us to keep with FDSTORE=1
// (sd_notify(3)) belongs to its instance, and the instance's next process is given
// it after the sockets, in the order in which it came.
//
// All there is to know of an entry stands in the name it is held under, so there is
// nothing to save: a supervisor that comes after us finds it in the inventory. It
// is held before its message is taken out of the notify socket. Who looks at the
// message again finds the same file in the store, and does not keep it twice.

// A stored is one entry.
type stored struct {
	held     string // store/web@2/0007/name; 0007! if it stays when it hangs up
	instance int
	number   int // counts up in the unit: the order
	name     string
	stays    bool // FDPOLL=0
	fd       int
	key      uint64 // its watch key; 0 if it is not watched
}

const (
	unnamed = "stored" // an entry without FDNAME, as in systemd
	// mostNames bounds the names of an instance's entries together, in bytes: they
	// become one variable, and exec takes none above 128 KiB (MAX_ARG_STRLEN).
	mostNames = 64 << 10
	// storeReserve is how many descriptors must stay free in this process and, as it
	// holds about the same, in the keeper's.
	storeReserve = 256
)

func storeName(unit string, e *stored) string {
	stays := ""
	if e.stays {
		stays = "!"
	}
	return fmt.Sprintf("%s%s@%d/%04d%s/%s", keeper.StorePrefix, unit, e.instance, e.number, stays, e.name)
}

// parseStoreName reads a name back.
func parseStoreName(held string) (unit string, e *stored, ok bool) {
	rest, ok := strings.CutPrefix(held, keeper.StorePrefix)
	parts := strings.SplitN(rest, "/", 3)
	if !ok || len(parts) != 3 {
		return "", nil, false
	}
	unit, instance, _ := strings.Cut(parts[0], "@")
	number, stays := strings.CutSuffix(parts[1], "!")
	e = &stored{held: held, name: parts[2], stays: stays}
	var err1, err2 error
	e.instance, err1 = strconv.Atoi(instance)
	e.number, err2 = strconv.Atoi(number)
	return unit, e, err1 == nil && err2 == nil && e.instance > 0
}

// recallStores finds the entries that a supervisor before us has kept.
func (s *Supervisor) recallStores(inv keeper.Inventory) {
	for held, fd := range inv.Descriptors {
		unit, e, ok := parseStoreName(held)
		u := s.units[unit]
		if !ok || u == nil {
			continue // a stranger
		}
		e.fd = fd
		u.stored = append(u.stored, e)
	}
	for _, u := range s.units {
		slices.SortFunc(u.stored, func(a, b *stored) int { return cmp.Compare(a.number, b.number) })
		if s.safe() != "" {
			continue
		}
		for _, e := range u.stored {
			s.watchStored(u, e)
		}
	}
}

// storedOf are an instance's entries, in the order in which they came.
func (u *unit) storedOf(instance int) []*stored {
	var mine []*stored
	for _, e := range u.stored {
		if e.instance == instance {
			mine = append(mine, e)
		}
	}
	return mine
}

// store does what a message says about the store. The descriptors that came with it
// are taken over or closed.
func (s *Supervisor) store(r *run, m sys.Message, fds []int, refuse func(because string)) {
	n := m.Fields
	if n.FDStoreRemove {
		for _, e := range r.unit.storedOf(r.id.Instance) {
			if e.name == n.FDName {
				s.unstore(r.unit, e, "removed by the service")
			}
		}
	}
	for i, fd := range fds {
		if !m.Stores() {
			sys.CloseAside(fds[i:]...)
			return
		}
		e := &stored{instance: r.id.Instance, name: cmp.Or(n.FDName, unnamed), stays: !n.FDPoll, fd: fd}
		kept, err := s.keep(r.unit, e)
		if err != nil {
			refuse(fmt.Sprintf("descriptor %d of %d not stored: %v", i+1, len(fds), err))
		}
		if !kept {
			sys.CloseAside(fd)
		}
	}
}

// keep puts an entry into the store. It is no error if it is there already.
func (s *Supervisor) keep(u *unit, e *stored) (kept bool, err error) {
	most := u.storeMax()
	if most == 0 {
		return false, errors.New("the unit has no fd_store_max")
	}
	mine, names := u.storedOf(e.instance), len(e.name)
	for _, other := range mine {
		if sys.SameFile(other.fd, e.fd) {
			return false, nil
		}
		names += len(other.name) + 1
	}
	for _, k := range u.socketsOf(e.instance) {
		if sys.SameFile(k.fd, e.fd) {
			return false, nil // it is given that one in any case
		}
	}
	if len(mine) >= most {
		return false, fmt.Errorf("the store is full (fd_store_max = %d)", most)
	}
	if names > mostNames {
		return false, fmt.Errorf("the names of what is stored are longer than %d bytes", mostNames)
	}
	if err := sys.Room(e.fd, storeReserve+4*s.processes); err != nil {
		return false, err
	}
	if err := sys.Storable(e.fd); err != nil {
		return false, err
	}
	e.number = 1
	if n := len(u.stored); n > 0 {
		e.number = u.stored[n-1].number + 1
	}
	e.held = storeName(u.conf.Name, e)
	if err := s.keeper.Hold(e.held, e.fd); err != nil {
		return false, err
	}
	u.stored = append(u.stored, e)
	s.watchStored(u, e)
	s.log.Info("stored", "unit", u.conf.Name, "instance", e.instance, "name", e.name)
	return true, nil
}

func (u *unit) storeMax() int {
	if u.conf.Service == nil {
		return 0
	}
	return u.conf.Service.FDStoreMax
}

// watchStored asks to hear of a hang-up, unless the entry is to stay then.
func (s *Supervisor) watchStored(u *unit, e *stored) {
	if e.stays {
		return
	}
	e.key = s.newKey(target{unit: u, stored: e})
	err := s.watch.ArmHangup(e.fd, e.key)
	if err == nil {
		return
	}
	delete(s.targets, e.key)
	e.key = 0
	if !errors.Is(err, unix.EPERM) { // EPERM: a file that never hangs up
		s.log.Warn("not watched", "unit", u.conf.Name, "instance", e.instance, "stored", e.name, "err", err)
	}
}

// unstore parts from an entry. A process that is being started with it gets it all
// the same.
func (s *Supervisor) unstore(u *unit, e *stored, because string) {
	if e.key != 0 {
		s.watch.Remove(e.fd)
		delete(s.targets, e.key)
	}
	u.stored = slices.DeleteFunc(u.stored, func(other *stored) bool { return other == e })
	if err := s.keeper.Release(e.held); err != nil {
		s.log.Error("not released", "unit", u.conf.Name, "instance", e.instance, "stored", e.name, "err", err)
	}
	s.log.Info("no longer stored", "unit", u.conf.Name, "instance", e.instance, "name", e.name, "because", because)
}

// hungup: the watcher has fired for an entry.
func (s *Supervisor) hungup(u *unit, e *stored) {
	s.unstore(u, e, "it hung up")
	s.publish(u)
}

// giveStored is what an instance's next process is given of the store: what has
// hung up meanwhile is not.
func (s *Supervisor) giveStored(u *unit, instance int) []*stored {
	for _, e := range u.storedOf(instance) {
		if !e.stays && sys.Hungup(e.fd) {
			s.unstore(u, e, "it hung up")
		}
	}
	return u.storedOf(instance)
}

// settleStore parts from what is not to be kept any longer. It looks at how things
// are, not at what has happened, so it may be called at any time.
func (s *Supervisor) settleStore(u *unit) {
	if len(u.stored) == 0 {
		return
	}
	kept := map[int]int{} // by instance
	for _, e := range slices.Clone(u.stored) {
		because := u.storeEnds(e.instance)
		if because == "" && kept[e.instance] >= u.storeMax() {
			because = "fd_store_max is lower now"
		}
		if because != "" {
			s.unstore(u, e, because)
			continue
		}
		kept[e.instance]++
	}
}

// storeEnds says why an instance's store is not kept; "" if it is.
func (u *unit) storeEnds(instance int) string {
	for _, r := range u.runs {
		if r.id.Instance == instance && !r.exited {
			return ""
		}
	}
	switch {
	case u.storeMax() == 0:
		return "fd_store_max is 0"
	case instance > u.instances():
		return "there is no such instance any more"
	case u.removed:
		return "the unit was removed"
	}
	switch u.conf.Service.FDStorePreserve {
	case units.PreserveYes:
		return ""
	case units.PreserveNo:
		return "no process is left"
	}
	switch u.machine.Condition(instance) {
	case machine.Stopped:
		return "the unit was stopped"
	case machine.EndedWell, machine.EndedFailed:
		return "the unit has ended for good"
	}
	return ""
}

// dropStore parts from everything a unit has stored.
func (s *Supervisor) dropStore(u *unit, because string) {
	for _, e := range slices.Clone(u.stored) {
		s.unstore(u, e, because)
	}
}
