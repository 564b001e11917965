package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
)

// Point 3: how evenly, and how quickly, connections are served by instances with a
// socket each, beside instances that share one.
func TestBalanceFairness(t *testing.T) {
	type way struct {
		*balanced
		tally tally
		rates []float64
	}
	var ways []*way
	for _, inGo := range []bool{false, true} {
		for _, n := range []int{1, 2, 4, 8} {
			for _, shared := range []bool{false, true} {
				if !*balanceFull && (inGo || shared || n < 4) {
					continue
				}
				name := fmt.Sprintf("%s, %d", map[bool]string{false: "C", true: "Go"}[inGo], n)
				ways = append(ways, &way{balanced: (&balanced{Name: name, Go: inGo, Instances: n, Shared: shared}).up(t)})
			}
		}
	}
	for _, n := range []int{4, 8} {
		if os.Getuid() == 0 && (*balanceFull || n == 4 && !testing.Short()) {
			name := fmt.Sprintf("C, %d, ordinary user", n)
			ways = append(ways, &way{balanced: (&balanced{Name: name, Instances: n, World: world{UID: nobody}}).up(t)})
		}
	}
	for range either(1, 6) {
		for _, w := range ways {
			y := (&volley{Address: w.address, InFlight: 64, Count: 20000}).fly(t)
			w.tally.add(y)
			w.rates = append(w.rates, float64(y.Served)/y.Elapsed.Seconds())
		}
	}
	var out strings.Builder
	tw := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "\tsockets\tconnections\tlost\tserved a second (median)\tcoefficient of variation\t")
	for _, w := range ways {
		kind, cv := "siblings, "+w.level(), w.tally.variation(w.Instances)
		if w.Shared {
			kind = "shared"
		} else if w.Instances == 1 {
			kind = "one"
		}
		slices.Sort(w.rates)
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%.0f\t%.3f\t\n", w.Name, kind, w.tally.all(), w.tally.lost()+w.tally.InHand, w.rates[len(w.rates)/2], cv)
		if w.tally.lost()+w.tally.InHand > 0 {
			t.Errorf("%s: lost %s", w.Name, w.tally.losses())
		}
		// By chance alone it would be √((n-1)/connections): 0.019 for 8 instances.
		if !w.Shared && w.Instances >= 4 && cv >= 0.05 {
			t.Errorf("%s, siblings: coefficient of variation %.3f, want less than 0.05: %v", w.Name, cv, w.tally.Instance)
		}
	}
	tw.Flush()
	t.Log("\n" + out.String())
}

// variation is the standard deviation of what instances have served, by the mean.
func (y *tally) variation(instances int) float64 {
	mean, sum := float64(y.Served)/float64(instances), 0.0
	for i := range instances {
		d := float64(y.Instance[i+1]) - mean
		sum += d * d
	}
	return math.Sqrt(sum/float64(instances)) / mean
}
