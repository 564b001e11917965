package supervisor

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"golang.org/x/sys/unix"
)

var (
	manyInstances = flag.Int("instances", 400, "how many instances TestManyInstances scales a unit to")
	crowdRounds   = flag.Int("crowds", 4, "how often TestEndsHeardTogether has all runs of a unit end at once")
)

// supervisor is the process that the tree's keeper has started to decide; 0: none now.
func (tr *tree) supervisor() int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", tr.cmd.Process.Pid))
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, word := range strings.Fields(string(text)) {
			env, _ := os.ReadFile("/proc/" + word + "/environ") // of a service before its exec this is the keeper's
			if bytes.Contains(env, []byte(keeper.FDVariable+"=")) {
				pid, _ := strconv.Atoi(word)
				return pid
			}
		}
	}
	return 0
}

// processorTimeOf is what another process has used: clock_getcpuclockid(3).
func processorTimeOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// atRest waits until a process has no more to do, and says what it has used.
func atRest(t *testing.T, pid int) (used time.Duration) {
	t.Helper()
	quiet := 0
	waitFor(t, "it is at rest", func() bool {
		now := processorTimeOf(t, pid)
		if quiet++; now-used > 100*time.Microsecond {
			quiet = 0
		}
		used = now
		return quiet >= 20
	})
	return used
}

// Each instance of many costs what each of few does: a unit is not saved, looked through
// and shown for each piece of news.
func TestManyInstances(t *testing.T) {
	if testing.Short() {
		t.Skip("measures time, which is not for -short and the race detector")
	}
	const mostTimes = 7
	few, many := *manyInstances/4, *manyInstances
	if most := fileLimit(); most < uint64(8*many) {
		t.Skipf("needs %d open files, and the limit is %d", 8*many, most)
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "p.toml"), "[service]\nexec = \"sleep 1000000\"\nready = \"exec\"\nstart = \"boot\"\n[socket.s]\nlisten = \"tcp://127.0.0.1:0\"\nper_instance = true\n")
	tr := plantTree(t, dir)
	t.Cleanup(func() { // also where the test has failed: nobody else ends these processes
		tr.cmd.Process.Signal(syscall.SIGTERM)
		tr.cmd.Wait()
	})
	tr.awaitControl()
	pid, now := 0, 0
	find := func(pid *int) { // while others come and go the kernel's list may lack it: proc_pid_task(5)
		waitFor(t, "the supervisor", func() bool { *pid = tr.supervisor(); return *pid != 0 })
	}
	find(&pid)
	scale := func(n int) {
		t.Helper()
		out, err := tr.client.Scale(t.Context(), "p", n, true, 3*patience)
		if err != nil || out.Outcome != Done {
			t.Fatalf("scaled to %d: %+v, %v", n, out, err)
		}
	}
	used := func(n int) time.Duration { // by going there and back, thrice
		before := atRest(t, pid)
		for range 3 {
			scale(n)
			scale(1)
		}
		return atRest(t, pid) - before
	}
	used(few) // what is made once is made
	began := time.Now()
	var small, large time.Duration
	for range 3 { // what others do to the processor's caches is not ours
		if small, large = used(few), used(many); large < mostTimes*small {
			break
		}
	}
	took := time.Since(began)
	if find(&now); now != pid || small == 0 {
		t.Fatalf("the supervisor was %d and is %d, and has used %v", pid, now, small)
	}
	tr.cmd.Process.Signal(syscall.SIGTERM)
	if err := tr.cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	for line := range strings.Lines(tr.log.String()) {
		if strings.Contains(line, "SIGKILL") || strings.Contains(line, "timeout") {
			t.Errorf("killed, or late: %s", line)
		}
	}
	ratio := float64(large) / float64(small)
	if ratio > mostTimes { // linear would be 4, quadratic 16
		t.Errorf("%d instances take %v of a processor, %d take %v: %.1f times", many, large, few, small, ratio)
	}
	t.Logf("promise N9: from 1 instance to %d and back takes %v of the supervisor's processor time, to %d %v, %.1f times as much; all in %v, none killed",
		few, (small / 3).Round(time.Millisecond), many, (large / 3).Round(time.Millisecond), ratio, took.Round(time.Millisecond))
}

// Ends of several runs are decided on together, and acknowledged one by one: whenever the
// supervisor dies meanwhile, each is recorded once, and nobody is started twice.
func TestEndsHeardTogether(t *testing.T) {
	const crowd = 12
	rounds := *crowdRounds
	if testing.Short() {
		rounds = min(rounds, 1)
	}
	runs, deaths := 0, map[string]int{}
	for range rounds {
		dir := t.TempDir()
		f := &fixture{t: t, dir: dir}
		f.write("work", fmt.Sprintf("[service]\nrole = factual TEST_DIR=%s\nready = \"notify\"\nstart = \"boot\"\ninstances = %d\nrestart_delay = \"10ms\"\nrestart_delay_max = \"20ms\"\n", dir, crowd))
		tr := plantTree(t, dir, "TEST_SKIP="+strconv.Itoa(400+rand.IntN(800)))
		tr.awaitControl()
		for range 3 {
			tr.killCrowd("work", crowd)
		}
		waitFor(t, "all are back", func() bool { return tr.readyOf("work") == crowd })
		born := bornIn(dir)
		for point, n := range deathsIn(filepath.Join(dir, "deaths")) {
			deaths[point] += n
		}
		tr.stop(born)
		tr.lines(born)
		runs += len(born)
	}
	t.Logf("promise N4: %d runs, %d at a time killed at once, supervisors that died %v: one exit record each", runs, crowd, deaths)
}

// readyOf is how many instances of a unit are.
func (tr *tree) readyOf(unit string) (n int) {
	st, err := tr.client.Unit(tr.t.Context(), unit)
	if err != nil {
		return 0
	}
	for _, in := range st.Instances {
		if in.State == "ready" {
			n++
		}
	}
	return n
}

// killCrowd kills all processes of a unit, once all of it is ready, and waits for others.
func (tr *tree) killCrowd(unit string, crowd int) {
	tr.t.Helper()
	waitFor(tr.t, "all are ready", func() bool { return tr.readyOf(unit) == crowd })
	var st UnitStatus
	tr.insist("status", func(ctx context.Context) (err error) { st, err = tr.client.Unit(ctx, unit); return err })
	mine := map[int]bool{}
	for _, pid := range bornIn(tr.dir) {
		mine[pid] = true
	}
	for _, in := range st.Instances {
		for _, r := range in.Runs {
			if fd, err := unix.PidfdOpen(r.Pid, 0); err == nil {
				if mine[r.Pid] {
					tr.killed[r.Pid] = true
					unix.PidfdSendSignal(fd, syscall.SIGKILL, nil, 0)
				}
				unix.Close(fd)
			}
		}
	}
	waitFor(tr.t, "all are back", func() bool {
		now, err := tr.client.Unit(tr.t.Context(), unit)
		return err == nil && now.LastGen >= st.LastGen+uint64(crowd)
	})
}
