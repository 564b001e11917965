package sys

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// plainly is the floor beside the two ways: os.StartProcess, which gives a child no
// pid in its environment, no cgroup and no stages.
var plainly = way{"os.StartProcess", func(s *Spec) (*Process, func() error, error) {
	null, err := devNull()
	if err != nil {
		return nil, nil, err
	}
	var pidfd int
	attr := os.ProcAttr{Env: s.Env, Sys: &unix.SysProcAttr{Setsid: true, PidFD: &pidfd}}
	attr.Files = benchFiles(null)
	p, err := os.StartProcess(s.Argv[0], s.Argv, &attr)
	if err != nil {
		return nil, nil, err
	}
	pid := p.Pid
	p.Release()
	return newProcess(pid, pidfd), func() error { return nil }, nil
}}

var benchFiles = func() func(int) []*os.File {
	var once sync.Once
	var f *os.File
	return func(null int) []*os.File {
		once.Do(func() { f = os.NewFile(uintptr(null), os.DevNull) })
		return []*os.File{f, f, f}
	}
}()

// BenchmarkWays measures the ways of starting /bin/true in turns, so that they
// share the machine's moods: from the call to its exec, and to its end, alone, as
// medians; and starts per second with four at a time, the best of several rounds.
func BenchmarkWays(b *testing.B) {
	needDirect(b)
	all := append([]way{plainly}, ways...)
	execed, ended := make([][]time.Duration, len(all)), make([][]time.Duration, len(all))
	for b.Loop() {
		for i, w := range all {
			began := time.Now()
			child, done := w.begin(b)
			if err := done(); err != nil {
				b.Fatal(err)
			}
			execed[i] = append(execed[i], time.Since(began))
			child.Wait()
			child.Reap()
			ended[i] = append(ended[i], time.Since(began))
		}
	}
	rates := make([]float64, len(all))
	for range 5 {
		for i, w := range all {
			rates[i] = max(rates[i], rate(b, w))
		}
	}
	for i, w := range all {
		exec, end := middle(execed[i]), middle(ended[i])
		b.ReportMetric(exec.Seconds()*1e6, "exec-µs/"+w.name)
		b.ReportMetric(end.Seconds()*1e6, "end-µs/"+w.name)
		b.ReportMetric(float64(exec)/float64(middle(execed[0])), "exec-ratio/"+w.name)
		b.ReportMetric(float64(end)/float64(middle(ended[0])), "end-ratio/"+w.name)
		b.ReportMetric(rates[i], "starts/s/"+w.name)
		b.ReportMetric(rates[i]/rates[0], "rate-ratio/"+w.name)
	}
}

func (w way) begin(b *testing.B) (*Process, func() error) {
	s := spec("/bin/true")
	s.Output = -1
	if w.name != plainly.name {
		s.PidEnv, s.PidfdEnv = []string{"LISTEN_PID"}, []string{"LISTEN_PIDFDID"}
	}
	child, done, err := w.start(&s)
	if err != nil {
		b.Fatal(fmt.Errorf("%s: %w", w.name, err))
	}
	return child, done
}

// rate starts some hundreds with four at a time, to their end.
func rate(b *testing.B, w way) float64 {
	const starts = 300
	var left atomic.Int32
	left.Store(starts)
	var wg sync.WaitGroup
	began := time.Now()
	for range 4 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				child, done := w.begin(b)
				done()
				child.Wait()
				child.Reap()
			}
		})
	}
	wg.Wait()
	return starts / time.Since(began).Seconds()
}

func middle(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}
