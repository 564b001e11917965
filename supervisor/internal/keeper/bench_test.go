package keeper_test

import (
	"os"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// BenchmarkStarts measures starts a second, from Spawn to the acknowledged end,
// one after the other and eight abreast, beside the same number of plain starts by
// os.StartProcess.
func BenchmarkStarts(b *testing.B) {
	for _, floor := range []struct {
		name    string
		options keeper.Options
	}{{"cgroup", keeper.Options{}}, {"no cgroup", keeper.Options{NoCgroup: true}}, {"no cgroup, a reaper", keeper.Options{NoCgroup: true, Reap: true}}} {
		for _, abreast := range []int{1, 8} {
			b.Run(floor.name+"/"+map[int]string{1: "one by one", 8: "eight abreast"}[abreast], func(b *testing.B) {
				k := newLocal(b, floor.options)
				n := 0
				start := func() {
					ok(b, k.Spawn(id("web", uint64(n)), process("/bin/true")))
					n++
				}
				begin := time.Now()
				for range min(abreast, b.N) {
					start()
				}
				for ended := 0; ended < b.N; {
					ev := next(b, k)
					ok(b, k.Acknowledge(ev))
					if ev.Kind == keeper.Execed {
						continue
					}
					if ended++; n < b.N {
						start()
					}
				}
				ours := time.Since(begin)
				ok(b, k.Close()) // a reaper would take the children that follow
				begin = time.Now()
				tokens := make(chan struct{}, abreast)
				for range b.N {
					tokens <- struct{}{}
					go func() {
						if p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{}); err == nil {
							p.Wait()
						}
						<-tokens
					}()
				}
				for range abreast {
					tokens <- struct{}{}
				}
				plain := time.Since(begin)
				b.ReportMetric(float64(b.N)/ours.Seconds(), "starts/s")
				b.ReportMetric(float64(b.N)/plain.Seconds(), "floor-starts/s")
				b.ReportMetric(ours.Seconds()/plain.Seconds(), "ratio")
			})
		}
	}
}
