package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
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
	var mu sync.Mutex   // of both
	made, read := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(read)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			var l struct {
				Unit, Line string
				Instance   int
				Gen        uint64 `json:"generation"`
			}
			json.Unmarshal(sc.Bytes(), &l)
			mu.Lock()
			if at, err := strconv.ParseInt(l.Line, 10, 64); err == nil {
				told[fmt.Sprintf("%d.%d", l.Instance, l.Gen)] = at
			} else if p := (plain{}); l.Unit == "floor" {
				if n, _ := fmt.Sscanf(l.Line, "floor %d %d", &p.heard, &p.late); n == 2 {
					plainly = append(plainly, p)
				}
			} else if strings.HasPrefix(l.Line, "made") {
				made <- struct{}{}
			}
			mu.Unlock()
		}
	}()
	var calm, busy, floor []time.Duration
	early := 0                          // of the busy ones: heard of while more orphans came
	var ran, waited, took time.Duration // the keeper, and all of it
	pid, begun, over, rounds := r.cmd.Process.Pid, int64(0), int64(0), 0
	heard, after := map[string]int64{}, map[int]int{} // when its exit was an event; exits of an instance since the orphans were made
	begin := func() {
		rounds++
		clear(heard)
		clear(after)
		run, wait := processor(pid)
		ran, waited = ran-run, waited-wait
		begun, over = time.Now().UnixNano(), 0
		c, err := net.Dial("unix", filepath.Join(dir, "s.sock"))
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	// judge looks at a round, and tells whether there is enough to be sure.
	judge := func() bool {
		run, wait := processor(pid)
		ran, waited = ran+run, waited+wait
		took += time.Duration(over - begun)
		mu.Lock()
		defer mu.Unlock()
		for id, at := range heard {
			if begun < told[id] && told[id] < over {
				if busy = append(busy, time.Duration(at-told[id])); at < over {
					early++
				}
			}
		}
		for _, p := range plainly {
			if begun < p.heard && p.heard < over {
				floor = append(floor, p.late)
			}
		}
		return len(busy) >= 20 && early >= len(busy)/4
	}
	for e := range events(t, dir) {
		if e.Unit != "clock" || e.What != "exited" {
			continue
		}
		heard[fmt.Sprintf("%d.%d", e.Instance, e.Gen)] = e.Time.UnixNano()
		if rounds == 0 && len(heard) == 100 {
			mu.Lock()
			for id, at := range heard {
				if told[id] > 0 {
					calm = append(calm, time.Duration(at-told[id]))
				}
			}
			mu.Unlock()
			begin()
		}
		if over > 0 {
			after[e.Instance]++
		}
		select {
		case <-made:
			over = time.Now().UnixNano()
		default:
		}
		// Two exits each: what had told the time before that has been heard of.
		if len(after) == 4 && slices.Min(slices.Collect(maps.Values(after))) >= 2 {
			if judge() || rounds == 8 {
				break
			}
			begin()
		}
	}
	eventually(t, "no zombie", func() bool { return zombiesOf(t, pid) == 0 })
	r.signal(unix.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	<-read
	if len(busy) == 0 {
		t.Fatalf("no exit while there were orphans, %d before", len(calm))
	}
	t.Logf("promise N4: %d orphans reaped in %v, none left; exits told after %s, before that %s; a plain poll of a pidfd told after %s; the keeper ran for %v and waited %v for a processor",
		rounds*n, took.Round(time.Millisecond), lateness(busy), lateness(calm), lateness(floor), ran, waited)
	// Exits that waited for the orphans would be told when no more came. How late they are
	// is the machine's affair, as the plain poll shows.
	if early < len(busy)/4 {
		t.Errorf("only %d of %d exits were told while orphans came, in %d rounds", early, len(busy), rounds)
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
