package steer

import (
	"fmt"
	"testing"
)

// A setting is a kind of world, and what may be asked of it.
type setting struct {
	name     string
	level    Level
	steers   bool // Set has an effect
	migrates bool // Flush can move connections
	make     func(t testing.TB, n int) world
}

var settings = func() []setting {
	var list []setting
	for _, network := range []string{"tcp4", "tcp6", "tcp"} {
		list = append(list, kernelSetting(network, EBPF, false))
	}
	for _, level := range []Level{ClassicBPF, Hash} {
		for _, migrate := range []bool{false, true} {
			list = append(list, kernelSetting("tcp4", level, migrate))
		}
	}
	list = append(list, kernelSetting("tcp", ClassicBPF, true), kernelSetting("tcp", Hash, true))
	for _, s := range []setting{
		{level: EBPF, migrates: true},
		{level: ClassicBPF},
		{level: ClassicBPF, migrates: true},
		{level: Hash},
		{level: Hash, migrates: true},
	} {
		s.name = fmt.Sprintf("fake %s migrate=%t", s.level, s.migrates)
		s.steers = s.level != Hash
		s.make = func(t testing.TB, n int) world { return newFakeWorld(t, s.level, n, s.migrates) }
		list = append(list, s)
	}
	return list
}()

func kernelSetting(network string, level Level, migrate bool) setting {
	return setting{
		name:     fmt.Sprintf("%s %s migrate=%t", level, network, migrate),
		level:    level,
		steers:   level != Hash,
		migrates: level == EBPF || migrate,
		make: func(t testing.TB, n int) world {
			return newKernelWorld(t, network, n, level, migrate, Options{}, halfOpenMeans)
		},
	}
}

// everywhere tells a story in all settings.
func everywhere(t *testing.T, places int, story func(t *testing.T, s setting, w world)) {
	for _, s := range settings {
		t.Run(s.name, func(t *testing.T) {
			w := s.make(t, places)
			story(t, s, w)
			if n := w.lost(); n != 0 {
				t.Errorf("%d clients lost", n)
			}
		})
	}
}

// crowd lets n clients come and be served, a few hundred at a time.
func crowd(w world, n int) []int {
	var sum []int
	for n > 0 {
		some := min(n, 500)
		w.connect(some)
		for place, one := range w.serve(some) {
			for len(sum) <= place {
				sum = append(sum, 0)
			}
			sum[place] += one
		}
		n -= some
	}
	return sum
}

// fits is a chi-square test of counts against shares. Its bound is passed by chance
// less than once in 100,000 for up to 8 places.
func fits(t *testing.T, got []int, weights ...int) {
	t.Helper()
	n, total, chi := 0, 0, 0.0
	for i := range weights {
		n += got[i]
		total += weights[i]
	}
	for i, w := range weights {
		if w == 0 {
			if got[i] != 0 {
				t.Errorf("place %d had %d of %d, want exactly 0", i, got[i], n)
			}
			continue
		}
		want := float64(n) * float64(w) / float64(total)
		chi += (float64(got[i]) - want) * (float64(got[i]) - want) / want
	}
	if chi > 36 {
		t.Errorf("shares %v do not fit %v: chi-square %.1f", got, weights, chi)
	}
	t.Logf("shares %v for %v: chi-square %.1f", got, weights, chi)
}
