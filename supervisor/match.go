package supervisor

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

// A renamed socket stays the same under another name, or with its address in other words.
type renamed struct {
	socket *socket
	name   string
	addr   units.Address
}

// match finds the sockets of a unit that stay where they are wanted: first those in
// their very place, then those whose address is wanted under another name.
func (b *binding) match(sockets []*socket, wanted []place) map[place]*socket {
	want := make(map[place]bool, len(wanted))
	for _, p := range wanted {
		want[p] = true
	}
	have := map[place]*socket{}
	var left []*socket
	for i, p := range placesOf(sockets) {
		if want[p] {
			have[p] = sockets[i]
		} else {
			left = append(left, sockets[i])
		}
	}
	for _, p := range wanted {
		if have[p] != nil {
			continue
		}
		if i := slices.IndexFunc(left, func(k *socket) bool { return k.is(p) }); i >= 0 {
			have[p] = left[i]
			b.renamed = append(b.renamed, renamed{left[i], p.name, p.addr})
			left = slices.Delete(left, i, i+1)
		}
	}
	return have
}

// settled says that a unit has its sockets and no other, in their places, and is saved so.
func (u *unit) settled() bool {
	return u.savedConf == u.conf && u.leaving == nil && slices.Equal(placesOf(u.sockets), places(u.conf, u.instances(), u.twoSeats(u.conf)))
}

// is says whether the socket is what p wants, whatever it is called: by its address as
// written, or as bound, where the kernel has chosen the port.
func (k *socket) is(p place) bool {
	return k.instance == p.instance && k.seat == p.seat && (k.addr.Same(p.addr) || units.Address{Network: k.addr.Network, Address: k.real}.Same(p.addr))
}

// holders are the units whose runs may hold a socket that is given up now.
func (s *Supervisor) holders(k *socket) map[string]uint64 {
	all := map[string]uint64{}
	maps.Copy(all, k.others)
	for name, u := range s.units {
		if u.has(k) {
			all[name] = u.machine.LastGen
		}
	}
	return all
}

// rename gives renamed sockets their new names; done twice, the old ones again.
func (b *binding) rename() {
	for i := range b.renamed {
		r := &b.renamed[i]
		r.socket.name, r.name = r.name, r.socket.name
		r.socket.addr, r.addr = r.addr, r.socket.addr
	}
}

// unwanted are the sockets of a unit that conf has no place for: others may go on with them.
func (u *unit) unwanted(conf *units.Unit) []*socket {
	kept := new(binding).match(u.sockets, places(conf, instancesIn(conf), u.twoSeats(conf)))
	return without(u.sockets, slices.Collect(maps.Values(kept)))
}

// without are the sockets of all that are not among some.
func without(all, some []*socket) (rest []*socket) {
	among := make(map[*socket]bool, len(some))
	for _, k := range some {
		among[k] = true
	}
	for _, k := range all {
		if !among[k] {
			rest = append(rest, k)
		}
	}
	return rest
}

// ownInTheWay says of an address that is taken by a socket of ours, or by one that a
// service of ours has bound, whose it is and what to do.
func (s *Supervisor) ownInTheWay(err error) error {
	var e *sys.BindError
	if !errors.As(err, &e) || !errors.Is(e.Err, unix.EADDRINUSE) || e.Owner == nil {
		return err
	}
	taken := fmt.Sprintf("%s %s %s: %v", e.Op, e.Network, e.Address, e.Err)
	for _, u := range s.sorted() {
		for _, k := range slices.Concat(u.sockets, u.leaving) {
			if k.inode != e.Owner.Inode || k.inode == 0 {
				continue
			}
			if u.removed {
				return &inTheWay{fmt.Sprintf("%s by unit %s, socket %s, %s: the unit was removed, and is leaving (reload again when its processes have ended)",
					taken, u.conf.Name, k.name, k.where()), err}
			}
			return &inTheWay{fmt.Sprintf("%s by unit %s, socket %s, %s: the new one overlaps with it and both cannot be open at once, so no reload "+
				"goes from one to the other without a moment without either (take the old one out of the file, sockd reload, put the new one in, sockd reload)",
				taken, u.conf.Name, k.name, k.where()), err}
		}
		for _, r := range u.runs {
			if r.pid == e.Owner.Pid && r.pid != 0 && !r.exited {
				return &inTheWay{fmt.Sprintf("%s by a socket that only %s (pid %d) has: sockd has let it go, or the process has bound it by itself (sockd restart %s, or wait until it has ended)",
					taken, r.id, r.pid, u.conf.Name), err}
			}
		}
	}
	return err
}

// An inTheWay is err in the words of unit files.
type inTheWay struct {
	text string
	err  error
}

func (e *inTheWay) Error() string { return e.text }
func (e *inTheWay) Unwrap() error { return e.err }
