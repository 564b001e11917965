package steer

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// A classic is the engine of level ClassicBPF: every change swaps a program that
// answers with indices of the kernel's own order, so that order is followed exactly.
type classic struct {
	s      *steering // to reach members
	at     []int     // by place; -1 if there is none
	order  order
	table  *table
	memory *memory
}

func openClassic(s *steering, o Options) (*classic, error) {
	e := &classic{s: s, at: append([]int(nil), s.fds...), table: s.table}
	var err error
	if held, ok := o.Held[memoryName]; ok {
		err = e.adopt(held)
	} else {
		err = e.begin()
	}
	if err != nil {
		return nil, errors.Join(err, e.memory.close())
	}
	err = s.heal(func(fd int) {
		e.order.leave(fd)
		e.order.join(fd)
	})
	if err == nil {
		err = e.spread(s.table, nil)
	}
	if err != nil {
		return nil, errors.Join(err, e.memory.close())
	}
	return e, nil
}

// begin takes the order of the list for the kernel's.
func (e *classic) begin() error {
	for _, fd := range e.s.fds {
		if fd >= 0 && e.listens(fd) {
			e.order.join(fd)
		}
	}
	var err error
	e.memory, err = newMemory()
	return err
}

// adopt takes over the order that an earlier supervisor has left behind. Where that
// does not fit it is an error: by a guess clients would be sent to places that nobody
// serves.
func (e *classic) adopt(held int) error {
	var err error
	if e.memory, err = adoptMemory(held); err != nil {
		return err
	}
	if e.order, err = e.memory.recall(e.s.fds, e.listens); err != nil {
		return err
	}
	t, err := e.memory.table()
	if err != nil {
		return err
	}
	e.table = t
	e.s.adopt(t)
	return nil
}

// listens says whether a socket is in the kernel's group.
func (e *classic) listens(fd int) bool {
	if !e.s.kind.stream {
		_, err := unix.Getpeername(fd)
		return err != nil // not connected to itself
	}
	listening, _, _, err := e.s.wire.look(fd)
	return err == nil && listening
}

func (e *classic) level() Level   { return ClassicBPF }
func (e *classic) migrates() bool { return migrateReq() }

func (e *classic) spread(t *table, _ []int) error {
	if err := e.swap(e.index, t); err != nil {
		return err
	}
	e.table = t
	return e.memory.record(e.order, t)
}

// index of the member that serves a place.
func (e *classic) index(place uint16) int {
	if int(place) >= len(e.at) || e.at[place] < 0 {
		return -1
	}
	return e.order.index(e.at[place])
}

func (e *classic) swap(index func(place uint16) int, t *table) error {
	ins := classicProgram(t, e.s.kind, index)
	prog := unix.SockFprog{Len: uint16(len(ins)), Filter: &ins[0]}
	return e.s.attach(func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &prog)
	})
}

// leaving prepares for the last member to move into the hole: for that moment its
// place gets nothing, so the program is right before and after. Where its place is
// the only one, the few connections of the moment go by the kernel's hash.
func (e *classic) leaving(_, fd int) error {
	moves := e.order.last()
	if moves == fd {
		return nil
	}
	mover := uint16(slices.Index(e.at, moves))
	stand := slices.IndexFunc(e.table[:], func(p uint16) bool { return p != mover })
	if stand < 0 {
		return nil
	}
	return e.swap(func(place uint16) int {
		if place == mover {
			place = e.table[stand]
		}
		return e.index(place)
	}, e.table)
}

// left records before the socket may listen again: see memory.
func (e *classic) left(_, fd int) error {
	e.order.leave(fd)
	if len(e.order) == 0 {
		return e.memory.record(e.order, e.table)
	}
	return e.spread(e.table, nil)
}

func (e *classic) entered(place, fd int) error {
	for len(e.at) <= place {
		e.at = append(e.at, -1)
	}
	e.at[place] = fd
	e.order.join(fd)
	return e.memory.record(e.order, e.table)
}

func (e *classic) issue(int, uint32) error   { return nil }
func (e *classic) inherit(int, int) error    { return nil }
func (e *classic) counts(int) (Counts, bool) { return Counts{}, false }
func (e *classic) held() map[string]int      { return map[string]int{memoryName: e.memory.fd} }

func (e *classic) close(fd int) error {
	var err error
	if fd >= 0 {
		err = detach(fd)
	}
	return errors.Join(err, e.memory.close())
}
