package supervisor

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/steer"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

// The sockets that the instances of a unit have on one address are a group. Which of
// them a new connection goes to is the machine's decision; package steer carries it
// out, as well as this kernel and our privileges allow.

// A group is the siblings of one address.
type group struct {
	place   place // without instance
	steer   steer.Group
	ours    bool          // nobody else may join it; else the kernel's hash serves it
	options steer.Options // as it was opened; without Held
	seats   int           // how many sockets an instance has in it: 1 or 2
	again   bool          // what the machine wishes could not be set, and is tried again
	busy    bool          // its sockets are still another group's: a better level is tried later
	fds     []int         // its members, by instance and seat: see at
	held    []string      // what the keeper keeps of it
}

// steerUnit brings a unit's groups in line with its sockets: opened, joined, left.
func (s *Supervisor) steerUnit(u *unit, inv keeper.Inventory) {
	if len(u.groups) == 0 && !slices.ContainsFunc(u.sockets, func(k *socket) bool { return k.instance > 0 }) {
		return
	}
	wanted := map[place][]int{} // descriptors by instance and seat, -1 where there is none
	ours, seats := map[place]bool{}, map[place]int{}
	for _, p := range placesOf(u.sockets) {
		seats[p.group()] = max(seats[p.group()], int(p.seat)+1)
	}
	for i, p := range placesOf(u.sockets) {
		if p.instance == 0 {
			continue
		}
		if _, known := ours[p.group()]; !known {
			ours[p.group()] = s.steerable(u, u.sockets[i])
		}
		fds := wanted[p.group()]
		n := seats[p.group()]
		for len(fds) < p.instance*n {
			fds = append(fds, -1)
		}
		fds[(p.instance-1)*n+int(p.seat)] = u.sockets[i].fd
		wanted[p.group()] = fds
	}
	u.groups = slices.DeleteFunc(u.groups, func(g *group) bool {
		fds, ok := wanted[g.place]
		if !ok || len(fds) > steer.MaxPlaces || ours[g.place] != g.ours || seats[g.place] != g.seats {
			s.closeGroup(g)
			return true
		}
		s.joinGroup(u, g, fds)
		delete(wanted, g.place)
		return false
	})
	for _, p := range slices.SortedFunc(maps.Keys(wanted), place.compare) {
		if fds := wanted[p]; len(fds) > 1 && len(fds) <= steer.MaxPlaces {
			s.openGroup(u, group{place: p, fds: fds, ours: ours[p], seats: seats[p]}, inv)
		}
	}
	s.spreadSockets(u)
}

// steerAll does it for every unit: which groups are ours to steer depends on all.
func (s *Supervisor) steerAll(inv keeper.Inventory) {
	for _, u := range s.sorted() {
		s.steerUnit(u, inv)
	}
}

// refit tells a unit's machine what can be done about its queues now, if that is
// something else than before.
func (s *Supervisor) refit(u *unit) {
	spec := s.spec(u)
	spec.Instances = u.instances()
	if u.conf.Service != nil && !u.removed && spec != u.machine.Spec {
		s.follow = append(s.follow, news{u, machine.Respec{Spec: spec, Scaled: u.machine.Scaled}})
	}
}

// joinable says whether the unit file lets processes outside sockd join a socket's group.
func (u *unit) joinable(name string) bool {
	return slices.ContainsFunc(u.conf.Sockets, func(k units.Socket) bool { return k.Name == name && k.ReusePort })
}

// steerable: a group is ours to steer where nobody else may join it.
func (s *Supervisor) steerable(u *unit, k *socket) bool {
	if k.options == nil || u.joinable(k.name) {
		return false // processes outside sockd would get nothing
	}
	for _, other := range s.units {
		if other == u {
			continue
		}
		for _, o := range other.sockets {
			if o.real == k.real && sameKind(o.addr.Network, k.addr.Network) {
				return false // one program serves one group, and this one is two units'
			}
		}
	}
	return true
}

func sameKind(a, b string) bool { return strings.HasPrefix(a, "udp") == strings.HasPrefix(b, "udp") }

// steerPrefix begins the names under which a group's steering is held.
func (u *unit) steerPrefix(p place) string {
	return "steer/" + u.conf.Name + "/" + p.name + "/" + p.addr.String() + "/" + strconv.Itoa(p.nth) + "/"
}

// openGroup opens a group; one that is not ours is given back to the kernel's hash,
// whatever steered it before.
func (s *Supervisor) openGroup(u *unit, as group, inv keeper.Inventory) {
	p, fds, ours := as.place, as.fds, as.ours
	prefix := u.steerPrefix(p)
	held := map[string]int{}
	for name, fd := range inv.Descriptors {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			held[rest] = fd
		}
	}
	want, on := levelWanted()
	if !on {
		u.hearAgain(fds, false)
		return
	}
	options := u.flowOptions(p, as.seats)
	options.Until = s.steerUntil
	gr := &group{place: p, fds: fds, ours: ours, seats: as.seats, options: options}
	if options.Held = held; !ours {
		want, options.Held = steer.Hash, nil
	}
	g, err := steer.Open(fds, want, options)
	if err != nil {
		s.log.Warn("not steered", "unit", u.conf.Name, "socket", p.name, "err", err)
		return
	}
	gr.steer = g
	s.warnFlows(u, gr)
	for name, fd := range g.Held() {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err == nil {
			if err = s.keeper.Hold(prefix+name, dup); err != nil {
				unix.Close(dup)
			}
		}
		if err != nil {
			s.log.Warn("steering not held: after a crash it begins anew", "unit", u.conf.Name, "socket", p.name, "err", err)
			continue
		}
		gr.held = append(gr.held, prefix+name)
	}
	u.hearAgain(fds, g.Level() != steer.Hash)
	if g.Level() == steer.EBPF { // a program set through a socket that a service was given would be a surprise
		for _, fd := range fds {
			steer.Lock(fd)
		}
	}
	if want != steer.Hash && g.Level() != steer.EBPF && steer.Busy(fds) {
		gr.busy = true
		s.tryAgain(func() bool { return s.steerBetter(u, gr) })
	}
	s.log.Debug("steered", "unit", u.conf.Name, "socket", p.name, "level", g.Level(), "because", g.Why())
	u.groups = append(u.groups, gr)
	s.settleSeats(u, gr)
}

// levelVariable names the best level of steering to try, ebpf, classic-bpf or hash;
// off steers nothing. To measure what each is worth, and to do without one that
// misbehaves.
const levelVariable = "SOCKD_STEERING"

// levelWanted is what levelVariable asks for; anything else is the best there is.
func levelWanted() (want steer.Level, on bool) {
	name := os.Getenv(levelVariable)
	for _, level := range []steer.Level{steer.EBPF, steer.ClassicBPF, steer.Hash} {
		if level.String() == name {
			return level, true
		}
	}
	return steer.Best, name != "off"
}

// joinGroup tells a group of sockets that have come, have gone, or are others than
// before. Those before are about to be closed: none may stay.
func (s *Supervisor) joinGroup(u *unit, g *group, fds []int) {
	for i := len(g.fds) - 1; i >= len(fds); i-- {
		s.leaveGroup(u, g, i)
	}
	for i, fd := range fds {
		old := -1
		if i < len(g.fds) {
			old = g.fds[i]
		}
		if fd == old {
			continue
		}
		if fd < 0 {
			s.leaveGroup(u, g, i)
			continue
		}
		err := g.steer.Join(i, fd)
		if err != nil && old >= 0 {
			s.leaveGroup(u, g, i)
			err = g.steer.Join(i, fd)
		}
		if err != nil {
			s.log.Warn("not steered", "unit", u.conf.Name, "socket", g.place.name, "instance", i/g.seats+1, "err", err)
			continue
		}
		if g.steer.Level() == steer.EBPF {
			steer.Lock(fd)
		}
	}
	g.fds = fds
}

// leaveGroup takes a socket that is to be closed out of its group, at any price: its
// number will be another file's.
func (s *Supervisor) leaveGroup(u *unit, g *group, i int) {
	fd := g.fds[i]
	if fd < 0 {
		return
	}
	if err := g.steer.Leave(i); err != nil && !errors.Is(err, steer.ErrNoPlace) {
		queued, _, _, _ := sys.Queue(fd)
		s.log.Warn("queue closed", "unit", u.conf.Name, "instance", i/g.seats+1, "queued", queued, "err", err)
		if !strings.HasPrefix(g.place.addr.Network, "udp") {
			u.closed += queued
		}
		unix.Shutdown(fd, unix.SHUT_RD)
		g.steer.Leave(i)
	}
}

// rejoin tells a group that a member was shut down by somebody and listens again.
func (s *Supervisor) rejoin(u *unit, k *socket) {
	if g := u.groupOf(k); g != nil {
		if err := g.steer.Join(g.at(k.instance, k.seat), k.fd); err != nil {
			s.log.Warn("not steered", "unit", u.conf.Name, "socket", k.where(), "err", err)
		}
		if u.machine.Weights != nil { // while it had no socket the place was given none
			s.setWeights(u, u.machine.Weights)
		}
	}
}

// groupOf is the group that a socket is in, or nil.
func (u *unit) groupOf(k *socket) *group {
	for _, g := range u.groups {
		if at := g.at(k.instance, k.seat); k.instance > 0 && at < len(g.fds) && g.fds[at] == k.fd {
			return g
		}
	}
	return nil
}

func (s *Supervisor) closeGroup(g *group) {
	g.steer.Close()
	for _, name := range g.held {
		s.keeper.Release(name)
	}
}

// closeGroups lets a unit's groups go, before its sockets are closed.
func (s *Supervisor) closeGroups(u *unit) {
	for _, g := range u.groups {
		s.closeGroup(g)
	}
	u.groups = nil
}

// spec is what the machine is to know: the unit file, and what can be done about
// the unit's queues here.
func (s *Supervisor) spec(u *unit) machine.Spec {
	spec := machineSpec(u.conf)
	for _, g := range u.groups {
		if g.steer.Level() == steer.Hash {
			continue
		}
		spec.Steered = true
		if !strings.HasPrefix(g.place.addr.Network, "udp") && (g.steer.Level() == steer.EBPF || migration()) {
			spec.CanFlush = true
		}
	}
	return spec
}

// probe is what this machine allows, tried once.
var probe = sync.OnceValue(steer.Probe)

// migration is the one thing of that which an administrator may change under a running
// sockd; a reload takes notice. A variable for tests.
var migration = steer.Migration

// setWeights carries out machine.Steer.
func (s *Supervisor) setWeights(u *unit, weights []int) {
	for _, g := range u.groups {
		err := g.steer.Set(u.seatWeights(g, weights))
		if err == nil || errors.Is(err, steer.ErrUnsteered) {
			continue
		}
		s.log.Warn("weights not set", "unit", u.conf.Name, "socket", g.place.name, "weights", weights, "err", err)
		if g.again || errors.Is(err, steer.ErrNoPlace) { // a place is told when it has a socket again
			continue
		}
		// The kernel had no memory, say: an instance that is down would get clients for as long as it is.
		g.again = true
		s.tryAgain(func() bool {
			if slices.Contains(u.groups, g) {
				err = g.steer.Set(u.seatWeights(g, u.machine.Weights))
				g.again = err != nil && !errors.Is(err, steer.ErrUnsteered) && !errors.Is(err, steer.ErrNoPlace)
			} else {
				g.again = false
			}
			return !g.again
		})
	}
}

// flush carries out machine.Flush.
func (s *Supervisor) flush(u *unit, instance int) {
	for _, k := range u.sockets {
		if k.instance == instance {
			s.flushSocket(u, k)
		}
	}
}

// flushSocket moves what waits in a socket to its siblings. Handshakes that end later are
// in its queue then; they are watched for, and moved too. A queue that stays is not
// watched: it would be heard of again and again.
func (s *Supervisor) flushSocket(u *unit, k *socket) {
	g := u.groupOf(k)
	if g == nil {
		return
	}
	s.ownGroup(u, g)
	switch err := g.steer.Flush(g.at(k.instance, k.seat)); {
	case err == nil:
		s.watchSocket(u, k)
	case errors.Is(err, steer.ErrDatagrams):
	case errors.Is(err, steer.ErrLast), errors.Is(err, steer.ErrNoMigration):
		s.log.Info("queue held", "unit", u.conf.Name, "instance", k.instance, "because", err)
	default:
		s.log.Warn("queue not moved", "unit", u.conf.Name, "instance", k.instance, "err", err)
	}
}

// flushedCaller: somebody has come late to a queue that was moved away. It says
// whether that was it.
func (s *Supervisor) flushedCaller(u *unit, k *socket) bool {
	if k.instance == 0 || k.instance > len(u.machine.Instances) || !u.machine.Spec.CanFlush {
		return false
	}
	in := &u.machine.Instances[k.instance-1]
	if in.Watched || len(in.Runs) > 0 || k.instance > len(u.machine.Weights) || u.machine.Weights[k.instance-1] != 0 {
		return false
	}
	s.flushSocket(u, k)
	return true
}

// compare orders places, so that groups are opened in the same order each time.
func (p place) compare(q place) int {
	if c := strings.Compare(p.name, q.name); c != 0 {
		return c
	}
	if c := strings.Compare(p.addr.String(), q.addr.String()); c != 0 {
		return c
	}
	return p.nth - q.nth
}
