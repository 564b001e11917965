package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/steer"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
)

// flows = "sticky" or "quic": each instance has two sockets on an address, its seats, for
// the two runs that it may hold, so that a datagram can be sent to either. What is new
// goes to the head, the seat of the newest run that is ready; a run that leaves goes on
// getting its flows, and the packets whose connection ids it has issued. When it has gone,
// its flows go to the head. A seat's socket stays when its run goes.

// routesFlows says whether datagrams can be sent where their flows and ids say.
func routesFlows() bool {
	want, on := levelWanted()
	return on && want <= steer.EBPF && probe().Best == steer.EBPF
}

// wantsSeats says whether a unit file asks for them.
func wantsSeats(conf *units.Unit) bool {
	return slices.ContainsFunc(conf.Sockets, func(k units.Socket) bool { return k.Flows != "" })
}

// twoSeats says whether the unit's instances are to have two seats where conf asks for
// them. They keep what they have: a run may live in either.
func (u *unit) twoSeats(conf *units.Unit) bool {
	return wantsSeats(conf) && (routesFlows() || slices.ContainsFunc(u.sockets, func(k *socket) bool { return k.seat > 0 }))
}

// at is the number in the group of a seat.
func (g *group) at(instance int, seat int8) int { return (instance-1)*g.seats + int(seat) }

// routes says whether the group sends datagrams where their flows and ids say, or will soon.
func (g *group) routes() bool { return g.seats == 2 && (g.busy || g.steer.Level() == steer.EBPF) }

// seated says whether the unit's runs have seats.
func (u *unit) seated() bool {
	return slices.ContainsFunc(u.groups, func(g *group) bool { return g.seats == 2 })
}

// twin says whether a socket is one of two seats.
func (u *unit) twin(k *socket) bool {
	g := u.groupOf(k)
	return g != nil && g.seats == 2
}

// seatOf is the seat of a run that lives.
func (u *unit) seatOf(gen uint64) int8 {
	if r := u.runs[gen]; r != nil {
		return r.seat
	}
	return u.facts[gen].Seat // of a supervisor before us
}

// head is the seat of an instance that gets what is new.
func (u *unit) head(instance int) int8 {
	runs := u.machine.Instances[instance-1].Runs
	for _, states := range [][]machine.State{{machine.Ready}, {machine.Ready, machine.Starting}} {
		for i := len(runs) - 1; i >= 0; i-- {
			if slices.Contains(states, runs[i].State) {
				return u.seatOf(runs[i].Gen)
			}
		}
	}
	return u.heads[instance]
}

// setHead makes a seat the head, to which flows go whose run has left.
func (s *Supervisor) setHead(u *unit, instance int, seat int8) {
	if u.heads == nil {
		u.heads = map[int]int8{}
	}
	u.heads[instance] = seat
	for _, g := range u.groups {
		for of := range int8(2) {
			if at := g.at(instance, of); g.routes() && at < len(g.fds) && g.fds[at] >= 0 {
				if err := g.steer.Inherit(at, g.at(instance, seat)); err != nil {
					s.log.Warn("flows not passed on", "unit", u.conf.Name, "instance", instance, "err", err)
				}
			}
		}
	}
}

// freeSeat is the seat for an instance's next run: that which no other one has. Where
// nobody is, it is the head, unless somebody waits only in the other.
func (u *unit) freeSeat(instance int) int8 {
	if !u.seated() {
		return 0
	}
	for _, r := range u.runs {
		if r.id.Instance == instance && !r.exited && slices.ContainsFunc(u.groups, (*group).routes) {
			return 1 - r.seat
		}
	}
	var waits [2]int
	for _, k := range u.sockets {
		if k.instance == instance && u.twin(k) {
			queued, _, _, _ := sys.Queue(k.fd)
			waits[k.seat] += queued
		}
	}
	head := u.head(instance)
	if waits[head] == 0 && waits[1-head] > 0 && slices.ContainsFunc(u.groups, (*group).routes) {
		return 1 - head
	}
	return head
}

// handed are the sockets that a run is given.
func (u *unit) handed(r *run) []*socket {
	return slices.DeleteFunc(u.socketsOf(r.id.Instance), func(k *socket) bool { return k.seat != r.seat && u.twin(k) })
}

// point sends what is new to the heads, where one is another now. It comes before the old
// run is told to leave.
func (s *Supervisor) point(u *unit) {
	if !u.seated() {
		return
	}
	moved := false
	for i := range u.machine.Instances {
		was, known := u.heads[i+1]
		if head := u.head(i + 1); head != was || !known {
			moved = true
			s.setHead(u, i+1, head)
			if known && !u.sits(i+1, was) {
				s.bringSoon(u, i+1)
			}
		}
	}
	if moved {
		s.setWeights(u, u.machine.Weights)
	}
}

// seatWeights is the weights of a group's places: an instance's is its head's.
func (u *unit) seatWeights(g *group, weights []int) []int {
	if g.seats == 1 {
		return weights[:min(len(weights), len(g.fds))]
	}
	all := make([]int, len(g.fds))
	for i := range u.machine.Instances {
		at := g.at(i+1, u.heads[i+1])
		if at >= len(all) || g.fds[at] < 0 {
			continue
		}
		switch {
		case weights == nil:
			all[at] = 1
		case i < len(weights):
			all[at] = weights[i]
		}
	}
	return all
}

// settleSeats is for a group of seats that was opened: who lives has flows and has issued
// ids. Of an instance that has nobody the head is where somebody waits. Where nothing can be
// routed, the other seats leave the kernel's group: nobody reads there.
func (s *Supervisor) settleSeats(u *unit, g *group) {
	if g.seats == 1 {
		return
	}
	for i := range u.machine.Instances {
		head := u.head(i + 1)
		if len(u.machine.Instances[i].Runs) == 0 {
			head = u.freeSeat(i + 1)
		}
		s.setHead(u, i+1, head)
		if at := g.at(i+1, 1-u.heads[i+1]); !g.routes() && at < len(g.fds) && g.fds[at] >= 0 {
			s.leaveGroup(u, g, at)
		}
	}
	for gen, r := range u.runs {
		if !r.exited {
			s.issue(u, r, gen)
		}
	}
	if err := g.steer.Set(u.seatWeights(g, u.machine.Weights)); err != nil {
		s.log.Debug("weights not set", "unit", u.conf.Name, "socket", g.place.name, "err", err)
	}
}

// issue lets flows of generation gen, and packets whose connection ids it has issued, come
// to a run's seat; 0: none do any more.
func (s *Supervisor) issue(u *unit, r *run, gen uint64) {
	for _, g := range u.groups {
		if at := g.at(r.id.Instance, r.seat); g.routes() && at < len(g.fds) {
			if err := g.steer.Issue(at, gen); err != nil {
				s.log.Warn("flows not routed", "unit", u.conf.Name, "instance", r.id.Instance, "generation", r.id.Gen, "err", err)
			}
		}
	}
}

// idPrefix is what a run is to begin its connection ids with, in hexadecimal; "" where
// nobody looks at them.
func (u *unit) idPrefix(r *run) string {
	for _, g := range u.groups {
		if g.routes() && g.options.ConnectionIDs {
			return fmt.Sprintf("%08x", steer.Prefix(g.at(r.id.Instance, r.seat), r.id.Gen))
		}
	}
	return ""
}

// seatOfOrphan is the seat of a process of which nothing is saved: it has that socket.
func (u *unit) seatOfOrphan(c keeper.Child) int8 {
	for _, k := range u.sockets {
		if k.seat == 0 || k.instance != c.ID.Instance {
			continue
		}
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", c.Pid))
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && to == fmt.Sprintf("socket:[%d]", k.inode) {
				return k.seat
			}
		}
	}
	return 0
}

// fitsSeats says whether a unit can have so many instances.
func (u *unit) fitsSeats(instances int) error {
	if wantsSeats(u.conf) && instances > units.MaxFlowsInstances {
		return fmt.Errorf("instances: %d are more than the %d that a socket with flows can have", instances, units.MaxFlowsInstances)
	}
	return nil
}
