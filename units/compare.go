package units

import (
	"reflect"
	"slices"
)

// What says what has become of a unit or a socket.
type What string

const (
	Added   What = "added"
	Removed What = "removed"
	Changed What = "changed"
)

// A Change is what has become of one unit between two Sets.
type Change struct {
	Unit     string
	What     What
	Old, New *Unit // nil where there is none

	// Sockets are those that were added, removed, or kept with other options; the
	// added and changed in the order of New, then the removed in the order of Old.
	Sockets []SocketChange

	// Keys are the keys of [service] that changed: "service.exec", …
	Keys []string

	// Replace says that a running process sees the change: its command, environment,
	// folder, user or descriptors. Otherwise only policy has changed.
	Replace bool
}

// A SocketID identifies a socket across reloads: while it stays, the same kernel
// object stays.
type SocketID struct {
	Unit, Socket string
	Address      Address
	Index        int // the instance that owns it, from 1; 0: shared by all
}

// A SocketChange is what has become of one socket.
type SocketChange struct {
	ID       SocketID
	What     What     // Changed: the same socket, other options
	Old, New *Socket  // nil where there is none
	Keys     []string // Changed: the keys that are different
}

// A place is one kernel socket of a unit.
type place struct {
	id   SocketID
	sock *Socket
}

// places lists the shared sockets in descriptor order, then those of the first
// instance, then those of the second, and so on.
func (u *Unit) places() []place {
	var list []place
	add := func(index int) {
		for i := range u.Sockets {
			s := &u.Sockets[i]
			if s.PerInstance != (index > 0) {
				continue
			}
			for _, a := range s.Listen {
				list = append(list, place{SocketID{u.Name, s.Name, a, index}, s})
			}
		}
	}
	add(0)
	if u.Service != nil {
		for n := 1; n <= u.Service.Instances; n++ {
			add(n)
		}
	}
	return list
}

// Compare lists what changed from old to new, in order of name. Either may be nil:
// nothing is in it then. Comments, order of keys and the like change nothing.
func Compare(old, new *Set) []Change {
	var changes []Change
	before, after := old.byName(), new.byName()
	for _, name := range allNames(old, new) {
		c := Change{Unit: name, Old: before[name], New: after[name]}
		switch {
		case c.Old == nil:
			c.What, c.Sockets = Added, compareSockets(nil, c.New.places())
		case c.New == nil:
			c.What, c.Sockets = Removed, compareSockets(c.Old.places(), nil)
		default:
			c.What = Changed
			c.compare()
			if c.Sockets == nil && c.Keys == nil && !c.Replace {
				continue
			}
		}
		changes = append(changes, c)
	}
	return changes
}

func (s *Set) byName() map[string]*Unit {
	m := map[string]*Unit{}
	if s != nil {
		for _, u := range s.Units {
			m[u.Name] = u
		}
	}
	return m
}

func allNames(sets ...*Set) []string {
	var list []string
	for _, s := range sets {
		if s != nil {
			for _, u := range s.Units {
				list = append(list, u.Name)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// compare fills a Change of a unit that was and is.
func (c *Change) compare() {
	c.Sockets = compareSockets(c.Old.places(), c.New.places())
	c.Replace = (c.Old.Service == nil) != (c.New.Service == nil) || !reflect.DeepEqual(c.Old.handed(), c.New.handed())
	if c.Old.Service == nil || c.New.Service == nil {
		return
	}
	a, b := &draft{Service: *c.Old.Service}, &draft{Service: *c.New.Service}
	for _, k := range serviceKeys() {
		if !reflect.DeepEqual(k.field(a), k.field(b)) {
			c.Keys = append(c.Keys, "service."+k.name)
			c.Replace = c.Replace || k.seen
		}
	}
}

// handed is what a process of the unit gets, descriptor by descriptor.
func (u *Unit) handed() []any {
	var list []any
	for _, s := range u.Sockets {
		for _, a := range s.Listen {
			list = append(list, []any{s.Name, a, s.PerInstance, s.NonBlocking, s.Flows})
		}
	}
	if u.Service != nil && u.Service.Gate.Private() {
		list = append(list, ReadySocket)
	}
	return list
}

func compareSockets(old, new []place) []SocketChange {
	var changes []SocketChange
	before, after := map[SocketID]*Socket{}, map[SocketID]bool{}
	for _, p := range old {
		before[p.id] = p.sock
	}
	for _, p := range new {
		after[p.id] = true
		was := before[p.id]
		if was == nil {
			changes = append(changes, SocketChange{ID: p.id, What: Added, New: p.sock})
			continue
		}
		if keys := options(was, p.sock); keys != nil {
			changes = append(changes, SocketChange{p.id, Changed, was, p.sock, keys})
		}
	}
	for _, p := range old {
		if !after[p.id] {
			changes = append(changes, SocketChange{ID: p.id, What: Removed, Old: p.sock})
		}
	}
	return changes
}

// options lists the keys of a kept socket that are different. Other addresses are
// other sockets.
func options(old, new *Socket) []string {
	var list []string
	for _, k := range socketKeys() {
		if k.name != "listen" && !reflect.DeepEqual(k.field(old), k.field(new)) {
			list = append(list, k.name)
		}
	}
	return list
}
