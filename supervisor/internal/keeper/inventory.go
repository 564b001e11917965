package keeper

import (
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// inventory sends all that is held, in pieces; many of them in one message to a
// supervisor that takes batches of them, and is there the sooner.
func (s *session) inventory(batches bool) error {
	inv, err := s.local.Inventory()
	if err != nil {
		return err
	}
	for names := slices.Sorted(maps.Keys(inv.Descriptors)); len(names) > 0; {
		some := names[:min(len(names), maxDescriptors)]
		names = names[len(some):]
		fds := make([]int, len(some))
		for i, name := range some {
			fds[i] = inv.Descriptors[name]
		}
		if err := s.say(opHeld, fds, func(p *packer) { p.list(some) }); err != nil {
			return fmt.Errorf("inventory: %w", err)
		}
	}
	if err := s.pieces(inv, batches); err != nil {
		return fmt.Errorf("inventory: %w", err)
	}
	return s.say(opComplete, nil, nil)
}

// pieces sends what of an inventory has no descriptors.
func (s *session) pieces(inv Inventory, batches bool) error {
	var b batch
	var p packer
	flush := func() error {
		if b.empty() {
			return nil
		}
		defer b.clear()
		return s.say(opBatch, nil, func(p *packer) { p.b = b.body })
	}
	piece := func(o op, pack func(*packer)) error {
		p.b = p.b[:0]
		pack(&p)
		m := message{op: o, body: p.b}
		if !b.fits(m) {
			if err := flush(); err != nil {
				return err
			}
		}
		if batches && b.fits(m) {
			b.add(m)
			return nil
		}
		return s.say(o, nil, func(whole *packer) { whole.b = p.b })
	}
	for unit, state := range inv.States {
		if err := piece(opState, func(p *packer) { p.text(unit); p.bytes(state) }); err != nil {
			return err
		}
	}
	for _, c := range inv.Children {
		if err := piece(opChild, func(p *packer) { p.child(c) }); err != nil {
			return err
		}
	}
	return flush()
}

// Inventory implements Keeper.
func (r *Remote) Inventory() (Inventory, error) {
	if err := r.ask(opInventory, func(p *packer) { p.flag(true) }); err != nil { // a keeper that knows no batches of pieces looks at no flag
		return Inventory{}, err
	}
	select {
	case inv := <-r.pieces:
		return inv, nil
	case <-r.gone:
		return Inventory{}, ErrGone
	}
}

func newInventory() Inventory {
	return Inventory{Descriptors: map[string]int{}, States: map[string][]byte{}}
}

// piece notes one piece of an inventory, which keeps the message's body.
func (r *Remote) piece(inv *Inventory, m message) {
	u := unpacker{b: m.body}
	switch m.op {
	case opHeld:
		r.take(inv, u.list(), m.fds)
	case opState:
		unit := u.text()
		inv.States[unit] = u.bytes()
	case opChild:
		c := u.child()
		inv.Children = append(inv.Children, c)
		r.mu.Lock()
		r.listed[c.ID] = true
		r.mu.Unlock()
	}
}

// take notes descriptors that came in an inventory.
func (r *Remote) take(inv *Inventory, names []string, fds []int) {
	if len(names) != len(fds) {
		closeAll(fds)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names == nil {
		closeAll(fds)
		return
	}
	for i, name := range names {
		if have, ok := r.names[name]; ok { // asked twice: the one we use already stays
			unix.Close(fds[i])
			inv.Descriptors[name] = have
			continue
		}
		r.names[name] = fds[i]
		inv.Descriptors[name] = fds[i]
	}
}
