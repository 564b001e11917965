package sys

import (
	"os"
	"slices"
	"testing"
	"time"
)

// Each measurement stands beside the floor of the same run: os.StartProcess of the
// same program, which is given no pid in its environment, no cgroup and no stages.

// bare starts /bin/true the plain way, and returns after its exec.
func bare(b *testing.B) *os.Process {
	p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{Env: []string{"PATH=/bin"}})
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// BenchmarkStartToExec measures from the call to the exec of the service, one
// after the other: medians in microseconds.
func BenchmarkStartToExec(b *testing.B) {
	var ours, floor []time.Duration
	for b.Loop() {
		t := time.Now()
		p := bare(b)
		floor = append(floor, time.Since(t))
		p.Wait()

		s := spec("/bin/true")
		s.PidEnv, s.PidfdEnv = []string{"LISTEN_PID"}, []string{"LISTEN_PIDFDID"}
		t = time.Now()
		child := begin(b, s)
		ours = append(ours, time.Since(t))
		child.Wait()
		child.Reap()
	}
	a, f := median(ours), median(floor)
	b.ReportMetric(float64(a.Microseconds()), "µs")
	b.ReportMetric(float64(f.Microseconds()), "floor-µs")
	b.ReportMetric(float64(a)/float64(f), "ratio")
}

// BenchmarkStartToEnd measures from the call to the reaping, with and without a
// fresh cgroup.
func BenchmarkStartToEnd(b *testing.B) {
	for _, name := range []string{"no cgroup", "cgroup"} {
		b.Run(name, func(b *testing.B) {
			var c *Cgroup
			if name == "cgroup" {
				c = openCgroup(b)
			}
			var ours, floor []time.Duration
			for b.Loop() {
				t := time.Now()
				bare(b).Wait()
				floor = append(floor, time.Since(t))

				t = time.Now()
				s := spec("/bin/true")
				if c != nil {
					leaf, err := c.NewLeaf()
					if err != nil {
						b.Fatal(err)
					}
					s.Leaf = leaf
				}
				child := begin(b, s)
				child.Wait()
				child.Reap()
				if s.Leaf != nil {
					s.Leaf.Remove()
				}
				ours = append(ours, time.Since(t))
			}
			a, f := median(ours), median(floor)
			b.ReportMetric(float64(a.Microseconds()), "µs")
			b.ReportMetric(float64(f.Microseconds()), "floor-µs")
			b.ReportMetric(float64(a)/float64(f), "ratio")
		})
	}
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}
