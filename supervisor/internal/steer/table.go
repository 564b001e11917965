package steer

import "slices"

// Slots is the number of entries in a group's table: shares come in units of
// 1/Slots. It fits 1024 instances, and 64 of them differ by less than 0.05.
const Slots = 1024

// MaxPlaces is the largest number of places in a group.
const MaxPlaces = Slots

// maxWeight keeps products of weights far from overflow.
const maxWeight = 1 << 30

// A table says for each slot, which is picked by a hash or at random, which place
// it belongs to. One value, so that a change is one write.
type table [Slots]uint16

// shares divides the slots in proportion to weights by largest remainder: each
// share is right to less than one slot. Only where a weight is worth less than one
// slot it gets one all the same, at the cost of the largest.
func shares(weights []int) []int {
	total := 0
	for _, w := range weights {
		total += w
	}
	share := make([]int, len(weights))
	if total == 0 {
		return share
	}
	left := Slots
	byRemainder := make([]int, 0, len(weights))
	for i, w := range weights {
		if w == 0 {
			continue
		}
		share[i] = max(w*Slots/total, 1)
		left -= share[i]
		byRemainder = append(byRemainder, i)
	}
	slices.SortStableFunc(byRemainder, func(a, b int) int {
		return weights[b]*Slots%total - weights[a]*Slots%total
	})
	for i := 0; left > 0; i++ {
		p := byRemainder[i%len(byRemainder)]
		if weights[p]*Slots < total {
			continue // has its one slot already, which is more than its due
		}
		share[p]++
		left--
	}
	for ; left < 0; left++ {
		share[largest(share)]--
	}
	return share
}

func largest(share []int) int {
	at := 0
	for i, n := range share {
		if n > share[at] {
			at = i
		}
	}
	return at
}

// extend is the home table of n places, made from that of fewer. Home is where every
// slot belongs while all weights are equal; of one place it is the zero table. It
// grows place by place, so that a new one takes its share and nothing else moves.
func extend(home *table, places, n int) *table {
	equal := make([]int, n)
	for i := range equal {
		equal[i] = 1
	}
	for k := max(places, 1) + 1; k <= n; k++ {
		home = next(home, home, shares(equal[:k]))
	}
	return home
}

// next is the table after old in which place p has share[p] slots. It moves as few
// slots as those numbers allow. Which ones is settled by home: strangers are given
// away first, and a slot that is free goes home if it can. So a place that was away
// gets the very slots back that it had, and flows of the others stay.
func next(old, home *table, share []int) *table {
	t := *old
	var have, want [MaxPlaces]int
	copy(want[:], share)
	for _, p := range t {
		have[p]++
	}
	surplus := 0
	for p, n := range have {
		surplus += max(0, n-want[p])
	}

	var free [Slots]bool
	release := func(may func(slot int, owner uint16) bool) {
		for slot := Slots - 1; slot >= 0 && surplus > 0; slot-- {
			owner := t[slot]
			if !free[slot] && have[owner] > want[owner] && may(slot, owner) {
				free[slot] = true
				have[owner]--
				surplus--
			}
		}
	}
	short := func(p uint16) bool { return have[p] < want[p] }
	release(func(slot int, owner uint16) bool { return home[slot] != owner && short(home[slot]) })
	release(func(slot int, owner uint16) bool { return home[slot] != owner })
	release(func(int, uint16) bool { return true })

	take := func(slot int, p uint16) {
		t[slot] = p
		have[p]++
		free[slot] = false
	}
	for slot := range t {
		if free[slot] && short(home[slot]) {
			take(slot, home[slot])
		}
	}
	p := uint16(0)
	for slot := range t {
		if !free[slot] {
			continue
		}
		for !short(p) {
			p++
		}
		take(slot, p)
	}
	return &t
}
