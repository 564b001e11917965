package supervisor

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

// A place is where a socket belongs: what it is matched by when units are read
// again, and after a crash.
type place struct {
	name     string
	addr     units.Address
	nth      int  // the same address written twice in one socket counts on
	instance int  // 0: shared
	seat     int8 // which of two: see seats.go
}

// places lists where the unit file wants sockets, in the order services get them.
// twoSeats says whether instances have two seats where it asks for them and they are not
// more than a group has places for.
func places(conf *units.Unit, instances int, twoSeats bool) []place {
	var all []place
	twoSeats = twoSeats && instances <= units.MaxFlowsInstances
	for _, k := range conf.Sockets {
		seen := map[units.Address]int{}
		for _, a := range k.Listen {
			p := place{name: k.Name, addr: a, nth: seen[a]}
			seen[a]++
			if !k.PerInstance {
				all = append(all, p)
				continue
			}
			for i := 1; i <= instances; i++ {
				p.instance, p.seat = i, 0
				all = append(all, p)
				if twoSeats && k.Flows != "" && strings.HasPrefix(a.Network, "udp") {
					p.seat = 1
					all = append(all, p)
				}
			}
		}
	}
	return all
}

// placesOf says where sockets stand.
func placesOf(sockets []*socket) []place {
	all := make([]place, len(sockets))
	seen := map[place]int{}
	for i, k := range sockets {
		p := place{name: k.name, addr: k.addr, instance: k.instance, seat: k.seat}
		all[i] = p
		all[i].nth = seen[p]
		seen[p]++
	}
	return all
}

// A binding is a plan of sockets for a unit: those it has already and keeps, and
// those bound for it. It is carried out by commit or taken back by undo.
type binding struct {
	unit    *unit
	sockets []*socket // as the unit file wants them
	made    []*socket // of these, the new ones
	gone    []*socket // those no longer wanted
	taken   []*socket // that another unit gives up: the same kernel object goes on in made
	renamed []renamed // that the unit keeps under another name

	instances int // that there are to be

	committed       bool
	held            int       // how many of made were given to the keeper
	before, leaving []*socket // the unit's, before commit
}

// bind plans the sockets of a unit as conf wants them, for so many instances. What
// the unit holds already stays; spare are sockets that others give up, to be taken over by their address.
// An error means that nothing has changed.
func (s *Supervisor) bind(u *unit, conf *units.Unit, instances int, spare []*socket) (*binding, error) {
	b := &binding{unit: u, instances: instances}
	wanted := places(conf, instances, u.twoSeats(conf))
	have := b.match(u.sockets, wanted)
	options, err := socketsOptions(conf)
	if err != nil {
		return nil, err
	}
	var problems []error
	ports := map[place]string{} // port 0: siblings share what the first was given
	for _, p := range wanted {
		if k := have[p]; k != nil {
			b.sockets = append(b.sockets, k)
			ports[p.group()] = k.real
			continue
		}
		k, from, err := s.bindOne(conf, p, options[p.name], ports[p.group()], spare)
		if err != nil {
			problems = append(problems, fmt.Errorf("unit %s: socket %s: %w", conf.Name, p.name, s.ownInTheWay(err)))
			if p.instance > 0 {
				break // its siblings will say the same
			}
			continue
		}
		ports[p.group()] = k.real
		b.sockets = append(b.sockets, k)
		b.made = append(b.made, k)
		if from != nil {
			b.taken = append(b.taken, from)
		}
	}
	b.gone = without(u.sockets, b.sockets)
	if len(problems) > 0 {
		b.undo()
		return nil, errors.Join(problems...)
	}
	return b, nil
}

// group is the place without its instance: what siblings have in common.
func (p place) group() place {
	p.instance, p.seat = 0, 0
	return p
}

// bindOne binds one socket, or takes one that an outer manager has passed, or one
// of spare, which is then returned too.
func (s *Supervisor) bindOne(conf *units.Unit, p place, opts *sys.Options, real string, spare []*socket) (k, from *socket, err error) {
	k = &socket{name: p.name, addr: p.addr, instance: p.instance, seat: p.seat, options: opts}
	for _, sp := range spare {
		if sp.is(p) {
			k.real, k.path, k.inode, k.others = sp.real, sp.path, sp.inode, s.holders(sp)
			if k.fd, err = unix.FcntlInt(uintptr(sp.fd), unix.F_DUPFD_CLOEXEC, 3); err != nil {
				return nil, nil, err
			}
			return k, sp, nil
		}
	}
	if fd, ok := s.takePassedFor(p.addr); ok {
		k.fd, k.real = fd, p.addr.Address
		k.inode = inodeOf(fd)
		return k, nil, nil
	}
	address := p.addr.Address
	if real != "" {
		address = real
	}
	bound, err := sys.Bind(p.addr.Network, address, *opts)
	if errors.Is(err, unix.EADDRINUSE) && opts.ReusePort && s.takeBack(address) {
		bound, err = sys.Bind(p.addr.Network, address, *opts)
	}
	if err != nil {
		return nil, nil, err
	}
	for _, w := range bound.Warnings {
		s.log.Warn("option not set", "unit", conf.Name, "socket", p.name, "err", w)
	}
	k.fd, k.real, k.path, k.inode = bound.FD, bound.Address, bound.Path, inodeOf(bound.FD)
	return k, nil, nil
}

// nameHeld gives made, the new sockets of a unit, free names for their descriptors:
// listen/web/http, listen/web/http@2 for an instance's own, +1 and up for further
// addresses.
func nameHeld(unit string, have, made []*socket) {
	taken := make(map[string]bool, len(have)+len(made))
	for _, k := range have {
		taken[k.held] = true
	}
	type owner struct {
		name     string
		instance int
	}
	next := map[owner]int{}
	for _, k := range made {
		o := owner{k.name, k.instance}
		for {
			held := "listen/" + unit + "/" + k.name
			if next[o] > 0 {
				held += "+" + strconv.Itoa(next[o])
			}
			if k.instance > 0 {
				held += "@" + strconv.Itoa(k.instance)
			}
			next[o]++
			if !taken[held] {
				k.held, taken[held] = held, true
				break
			}
		}
	}
}

// release closes sockets for good and removes their paths.
func (s *Supervisor) release(sockets []*socket) { s.releaseUnless(s.heirs(), sockets) }

// releaseUnless does it, and leaves a path to whom it was passed on.
func (s *Supervisor) releaseUnless(passedOn func(*socket) bool, sockets []*socket) {
	for _, k := range sockets {
		s.sayWhoWaits(k)
		if k.key != 0 {
			s.watch.Remove(k.fd)
			delete(s.targets, k.key)
		}
		if k.path != nil && !passedOn(k) {
			if err := k.path.Remove(); err != nil {
				s.log.Warn("path not removed", "socket", k.where(), "err", err)
			}
		}
		if err := s.keeper.Release(k.held); err != nil {
			s.log.Error("socket not released", "socket", k.where(), "err", err)
		}
	}
}

// sayWhoWaits tells of those who are closed with a socket, if nobody else has it.
func (s *Supervisor) sayWhoWaits(k *socket) {
	if k.fd < 0 {
		return
	}
	if some, err := waiting(k.fd); err == nil && !some { // a queue costs more to look at, of Unix sockets
		return
	}
	queued, _, _, err := sys.Queue(k.fd)
	if err != nil || queued == 0 {
		return
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(k.held, heldSocket), "/")
	if u := s.units[name]; u != nil && !s.alone(u, k, 0) {
		return // a process reads it yet
	}
	for _, u := range s.units {
		if slices.ContainsFunc(u.sockets, func(o *socket) bool { return o != k && o.inode == k.inode }) {
			return
		}
	}
	switch {
	case k.listens():
		s.log.Warn("queue closed", "unit", name, "instance", k.instance, "socket", k.where(), "queued", queued)
	case len(s.takers(k.real, k)) == 0: // else they were brought there, or it was said why not
		s.log.Warn("datagrams closed", "unit", name, "instance", k.instance, "socket", k.where(), "bytes", queued)
	}
}

// heirs says who else has a socket, and leaves its path to him: a supervisor that was
// about to give it to one of them may have died half-way. It looks around once, for all
// that are released together.
func (s *Supervisor) heirs() (passOn func(*socket) bool) {
	type heir struct {
		unit   *unit
		socket *socket
	}
	var of map[uint64][]heir // by inode
	return func(k *socket) bool {
		if of == nil {
			of = make(map[uint64][]heir, len(s.units))
			for _, u := range s.units {
				for _, k := range u.sockets {
					of[k.inode] = append(of[k.inode], heir{u, k})
				}
			}
		}
		for _, h := range of[k.inode] {
			if h.socket == k || k.inode == 0 || !slices.Contains(h.unit.sockets, h.socket) {
				continue
			}
			if h.socket.path == nil {
				h.socket.path, h.unit.savedSockets = k.path, nil
				if err := s.save(h.unit); err != nil {
					s.log.Error("not saved", "unit", h.unit.conf.Name, "err", err)
				}
			}
			return true
		}
		return false
	}
}

// releaseAll closes every socket of every unit.
func (s *Supervisor) releaseAll() {
	gone := map[*unit][]*socket{}
	for _, u := range s.units {
		s.closeGroups(u)
		gone[u] = u.sockets
		u.setSockets(nil) // nobody is there to whom what waits could be sent
	}
	toNobody := func(*socket) bool { return false } // nor would a path be passed on
	for _, u := range s.units {
		s.releaseUnless(toNobody, gone[u])
		s.dropStore(u, "sockd stops")
		s.unsave(u)
	}
	s.closeLefts()
	s.forgetEnding()
}

// inodeOf identifies a socket for people and tests; 0 if it cannot be told.
func inodeOf(fd int) uint64 {
	inode, err := sys.Inode(fd)
	if err != nil {
		return 0
	}
	return inode
}
