package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Orphans come to process 1 by the thousand; none stays, and no exit of a run waits
// for them.
func TestPid1Orphans(t *testing.T) {
	needNamespaces(t)
	n := 5_000
	if *full {
		n = 100_000
	}
	for _, w := range []world{{}, {NoCgroup: true}} {
		name := "with cgroups"
		if w.NoCgroup {
			name = "without cgroups"
		}
		t.Run(name, func(t *testing.T) { orphans(t, w, n) })
	}
}

func orphans(t *testing.T, w world, n int) {
	dir := shortDir(t)
	probe := filepath.Join(built(t), "probe")
	write(t, dir, "clock.toml", fmt.Sprintf("[service]\nexec = [%q, \"clock\", \"20\"]\nrestart = \"always\"\nrestart_delay = \"1ms\"\nrestart_delay_max = \"1ms\"\nstart = \"boot\"\ninstances = 4\n", probe))
	write(t, dir, "orphans.toml", fmt.Sprintf("[service]\nexec = [%q, \"orphans\", \"%d\"]\n[socket.s]\nlisten = \"unix://./s.sock\"\n", probe, n))
	write(t, dir, "floor.toml", fmt.Sprintf("[service]\nexec = [%q, \"floor\", \"20\"]\nstart = \"boot\"\ninstances = 4\n", probe))
	out, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Namespaces, w.Args, w.stdout = asPid1, []string{"run", "--log-format", "json", dir}, write
	r := w.start(t, dir)
	write.Close()
	r.line(`"ready"`)

	told := map[string]int64{} // when a run told the time before it ended
	type plain struct {
		heard int64
		late  time.Duration
	}
	var plainly []plain // what a plain poll of a pidfd hears meanwhile
	made, read := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(read)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			var l struct {
				Unit, Line string
				Instance   int
				Gen        uint64 `json:"generation"`
			}
			json.Unmarshal(sc.Bytes(), &l)
			if at, err := strconv.ParseInt(l.Line, 10, 64); err == nil {
				told[fmt.Sprintf("%d.%d", l.Instance, l.Gen)] = at
			} else if p := (plain{}); l.Unit == "floor" {
				if n, _ := fmt.Sscanf(l.Line, "floor %d %d", &p.heard, &p.late); n == 2 {
					plainly = append(plainly, p)
				}
			} else if strings.HasPrefix(l.Line, "made") {
				close(made)
			}
		}
	}()
	heard := map[string]int64{} // when its exit was an event
	var begun, over int64
	var ran, waited time.Duration // the keeper
	pid := r.cmd.Process.Pid
	for e := range events(t, dir) {
		if e.Unit == "clock" && e.What == "exited" {
			heard[fmt.Sprintf("%d.%d", e.Instance, e.Gen)] = e.Time.UnixNano()
		}
		if begun == 0 && len(heard) == 100 {
			ran, waited = processor(pid)
			begun = time.Now().UnixNano()
			c, err := net.Dial("unix", filepath.Join(dir, "s.sock"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		select {
		case <-made:
			over = time.Now().UnixNano()
		default:
		}
		if over > 0 {
			break
		}
	}
	ranAll, waitedAll := processor(pid)
	ran, waited = ranAll-ran, waitedAll-waited
	eventually(t, "no zombie", func() bool { return zombiesOf(t, pid) == 0 })
	r.signal(unix.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	<-read
	var calm, busy []time.Duration
	for run, at := range heard {
		switch late := time.Duration(at - told[run]); {
		case told[run] == 0:
		case at < begun:
			calm = append(calm, late)
		case at < over:
			busy = append(busy, late)
		}
	}
	var floor []time.Duration
	for _, p := range plainly {
		if begun < p.heard && p.heard < over {
			floor = append(floor, p.late)
		}
	}
	if len(calm) == 0 || len(busy) == 0 {
		t.Fatalf("%d exits before and %d meanwhile", len(calm), len(busy))
	}
	whole := time.Duration(over - begun).Round(time.Millisecond)
	t.Logf("promise N4: %d orphans reaped in %v, none left; exits told after %s, before that %s; a plain poll of a pidfd told after %s; the keeper ran for %v and waited %v for a processor",
		n, whole, lateness(busy), lateness(calm), lateness(floor), ran, waited)
	// An exit that waited for the orphans would wait half of the time on average. How
	// late the last ones are is the machine's affair, as the plain poll shows.
	if median := middle(busy); median > whole/4 && median > 20*middle(floor) {
		t.Errorf("most exits were told %v late, of %v", median, whole)
	}
}

// processor tells how long the threads of a process have run so far, and how long they
// could have and got no processor (/proc/PID/schedstat); 0 where the kernel does not say.
func processor(pid int) (ran, waited time.Duration) {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, name := range stats {
		b, _ := os.ReadFile(name)
		var r, w time.Duration
		fmt.Sscan(string(b), &r, &w)
		ran, waited = ran+r, waited+w
	}
	return ran.Round(time.Millisecond), waited.Round(time.Millisecond)
}

// middle is the median; 0 of nothing.
func middle(d []time.Duration) time.Duration {
	slices.Sort(d)
	if len(d) == 0 {
		return 0
	}
	return d[len(d)/2]
}

// lateness says what there is of spans.
func lateness(d []time.Duration) string {
	if len(d) == 0 {
		return "(nothing heard)"
	}
	slices.Sort(d)
	round := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	return fmt.Sprintf("%v (median of %d; 99th %v, worst %v)", round(d[len(d)/2]), len(d), round(d[len(d)*99/100]), round(d[len(d)-1]))
}

// zombiesOf counts the dead children of a process.
func zombiesOf(t testing.TB, parent int) (n int) {
	t.Helper()
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[0] == "Z" && f[1] == strconv.Itoa(parent) {
			n++
		}
	}
	return n
}
