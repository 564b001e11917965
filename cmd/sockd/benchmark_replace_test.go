package main

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkReplaced: from the SIGKILL of a supervisor of 10 units, and of 1,000, to the
// first answer of the next, which then has taken up all of them. Both are measured in
// turn, at rest, with a listening TCP socket in each unit.
//
//	go test ./cmd/sockd -run '^$' -bench Replaced -benchtime 40x
func BenchmarkReplaced(b *testing.B) {
	_, service := floorPrograms(b)
	for _, kind := range []struct{ name, start string }{{"idle", "demand"}, {"running", "boot"}} {
		b.Run(kind.name, func(b *testing.B) {
			b.Setenv("CHAOS_CARE", "1") // each death counts as the first
			text := fmt.Sprintf("[service]\nexec = [%q]\nstart = %q\n[socket.s]\nlisten = \"tcp://127.0.0.1:PORT\"\n", service, kind.start)
			few, _ := startUnits(b, 10, text)
			few.up(b) // before others choose ports
			many, _ := startUnits(b, 1000, text)
			var ofFew, ofMany timing
			for range b.N {
				few.replaced(b, &ofFew)
				many.replaced(b, &ofMany)
			}
			b.ReportMetric(0, "ns/op")
			for _, p := range []struct {
				name string
				part float64
			}{{"best", 0}, {"p50", 0.5}, {"p99", 0.99}} {
				b.ReportMetric(ofFew.at(p.part).Seconds()*1000, "10-"+p.name+"-ms")
				b.ReportMetric(ofMany.at(p.part).Seconds()*1000, "1000-"+p.name+"-ms")
			}
			b.ReportMetric(float64(ofMany.at(0.5))/float64(ofFew.at(0.5)), "p50-ratio")
		})
	}
}

// replaced kills the supervisor once it is at rest, and waits for the answer of the next.
func (r *benched) replaced(b *testing.B, t *timing) {
	b.Helper()
	r.up(b)
	<-time.After(100 * time.Millisecond) // it has given back what beginning took
	w := newWatch(r.cmd.Process.Pid, r.dir)
	h := supervisorOf(b, r.cmd.Process.Pid)
	defer h.close()
	began := time.Now()
	h.signal(unix.SIGKILL)
	if !h.dead(patience) {
		b.Fatal("not dead")
	}
	if err := w.get("/healthz", nil); err != nil {
		b.Fatal(err)
	}
	*t = append(*t, time.Since(began))
}
