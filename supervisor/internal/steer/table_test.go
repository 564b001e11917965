package steer

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/quick"
)

func slotsOf(t *table, places int) []int {
	n := make([]int, places)
	for _, p := range t {
		n[p]++
	}
	return n
}

func moved(a, b *table) (n int) {
	for slot := range a {
		if a[slot] != b[slot] {
			n++
		}
	}
	return n
}

// randomWeights has between 1 and 40 places, of which at least one has a weight.
func randomWeights(r *rand.Rand, places int) []int {
	w := make([]int, places)
	for i := range w {
		switch r.IntN(4) {
		case 0: // away
		case 1:
			w[i] = 1
		case 2:
			w[i] = 1 + r.IntN(100)
		default:
			w[i] = 10
		}
	}
	w[r.IntN(places)] = 1 + r.IntN(100)
	return w
}

func TestSharesAreExact(t *testing.T) {
	for _, test := range []struct {
		name    string
		weights []int
		want    []int
	}{
		{"one", []int{7}, []int{1024}},
		{"equal four", []int{1, 1, 1, 1}, []int{256, 256, 256, 256}},
		{"equal three, the first has the odd one", []int{5, 5, 5}, []int{342, 341, 341}},
		{"1:2:4:1", []int{1, 2, 4, 1}, []int{128, 256, 512, 128}},
		{"drained", []int{1, 0, 1}, []int{512, 0, 512}},
		{"canary of 1 %", []int{1, 33, 33, 33}, []int{10, 338, 338, 338}},
		{"too small for a slot gets one", []int{1, 1 << 20}, []int{1, 1023}},
		{"largest weights", []int{maxWeight, maxWeight}, []int{512, 512}},
		{"nobody", []int{0, 0}, []int{0, 0}},
	} {
		if got := shares(test.weights); !slices.Equal(got, test.want) {
			t.Errorf("%s: shares(%v) = %v, want %v", test.name, test.weights, got, test.want)
		}
	}
	all := make([]int, MaxPlaces)
	for i := range all {
		all[i] = 1
	}
	if got := shares(all); slices.Min(got) != 1 || slices.Max(got) != 1 {
		t.Errorf("%d equal places: %d to %d slots, want 1", MaxPlaces, slices.Min(got), slices.Max(got))
	}
}

// Over random chains of wishes: shares within one slot, those without weight get
// none, no more slots move than the shares differ, and the same again is the same.
func TestTableProperties(t *testing.T) {
	property := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 1))
		places := 1 + r.IntN(40)
		base := homes[places]
		now := base
		for range 8 {
			w := randomWeights(r, places)
			want := shares(w)
			then := next(now, base, want)
			if got := slotsOf(then, places); !slices.Equal(got, want) {
				t.Logf("weights %v: slots %v, want %v", w, got, want)
				return false
			}
			total := 0
			for _, one := range w {
				total += one
			}
			for i, one := range w {
				exact := float64(one) * Slots / float64(total)
				small := exact < 1
				if (one == 0) != (want[i] == 0) || !small && slices.Min(nonzero(w))*Slots >= total && (float64(want[i]) <= exact-1 || float64(want[i]) >= exact+1) {
					t.Logf("weights %v: place %d has %d slots, exact is %.2f", w, i, want[i], exact)
					return false
				}
			}
			least := 0
			for i, n := range slotsOf(now, places) {
				least += max(0, n-want[i])
			}
			if n := moved(now, then); n != least {
				t.Logf("weights %v: %d slots moved, %d would do", w, n, least)
				return false
			}
			if *next(now, base, want) != *then || *next(then, base, want) != *then {
				t.Log("not the same again")
				return false
			}
			now = then
		}
		return true
	}
	if err := quick.Check(property, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
}

func nonzero(w []int) (list []int) {
	for _, one := range w {
		if one > 0 {
			list = append(list, one)
		}
	}
	return list
}

// Places that were away, or had another weight, get their own slots back when all is
// equal again: flows of the others never notice. It holds for those who go and return
// together; where they return one by one no more slots move than have to.
func TestPlacesComeHome(t *testing.T) {
	property := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 2))
		places := 2 + r.IntN(15)
		base, equal := homes[places], slices.Repeat([]int{10}, places)
		now := base
		for range 5 {
			w := slices.Clone(equal)
			for _, p := range r.Perm(places)[:1+r.IntN(places-1)] {
				w[p] = r.IntN(10)
			}
			now = next(next(now, base, shares(w)), base, shares(equal))
			if n := moved(now, base); n > 0 {
				t.Logf("seed %d: weights %v: %d slots are not at home", seed, w, n)
				return false
			}
		}
		return true
	}
	if err := quick.Check(property, &quick.Config{MaxCount: 500}); err != nil {
		t.Error(err)
	}
}

// Who returns while others stay away is given its own slots first.
func TestStrangersGoFirst(t *testing.T) {
	base := homes[4]
	away := next(base, base, shares([]int{1, 0, 0, 1}))
	back := next(away, base, shares([]int{1, 1, 0, 1}))
	own := 0
	for slot, p := range back {
		if p == 1 && base[slot] == 1 {
			own++
		}
	}
	if own != Slots/4 {
		t.Errorf("place 1 has %d of its own %d slots back", own, Slots/4)
	}
}

// homes[n] is home(n).
var homes = func() []*table {
	list := []*table{nil, new(table)}
	for n := 2; n <= 64; n++ {
		list = append(list, extend(list[n-1], n-1, n))
	}
	return list
}()

// A group that grows gives the new place its share and moves nothing else.
func TestHomeGrows(t *testing.T) {
	for n := 1; n < 64; n++ {
		a, b := homes[n], homes[n+1]
		share := slotsOf(b, n+1)
		if got, want := moved(a, b), share[n]; got != want {
			t.Errorf("from %d to %d places: %d slots moved, want %d", n, n+1, got, want)
		}
		if slices.Max(share)-slices.Min(share) > 1 {
			t.Errorf("%d places: slots %v", n+1, share)
		}
	}
}
