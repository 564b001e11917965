package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor"
	"golang.org/x/sys/unix"
)

// full: everything that is counted, and time goals count too. Takes minutes.
var full = flag.Bool("full", false, "every exit code and signal, 100,000 orphans, 1 % of a processor; fail on missed time goals")

// asPid1 is what a container engine gives.
const asPid1 = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET

// essential writes a unit that sockd ends with.
func essential(t testing.TB, dir, probe string) {
	t.Helper()
	write(t.(*testing.T), dir, "main.toml", "[service]\nexec = "+strconv.Quote(filepath.Join(built(t), "probe")+" "+probe)+"\nrestart = \"no\"\nstart = \"boot\"\nessential = true\n")
}

// terminating are the signals that end a process without a handler.
func terminating() (sigs []int) {
	for sig := 1; sig <= 64; sig++ {
		switch unix.Signal(sig) {
		case unix.SIGCHLD, unix.SIGCONT, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGURG, unix.SIGWINCH:
		default:
			sigs = append(sigs, sig)
		}
	}
	return sigs
}

// As process 1, sockd's own exit status is the essential unit's exit code, or 128
// and the signal that killed it.
func TestPid1ExitCodes(t *testing.T) {
	needNamespaces(t)
	codes := []int{0, 1, 42, 127, 128, 137, 255}
	sigs := []int{1, 6, 9, 11, 15, 64}
	if *full {
		codes, sigs = nil, terminating()
		for code := range 256 {
			codes = append(codes, code)
		}
	}
	type end struct {
		probe string
		want  int
	}
	var ends []end
	for _, code := range codes {
		ends = append(ends, end{fmt.Sprint("exit ", code), code})
	}
	for _, sig := range sigs {
		ends = append(ends, end{fmt.Sprint("die ", sig), 128 + sig})
	}
	t.Run("all", func(t *testing.T) {
		for _, e := range ends {
			t.Run(e.probe, func(t *testing.T) {
				t.Parallel()
				dir := shortDir(t)
				essential(t, dir, e.probe)
				r := world{Namespaces: asPid1, Args: []string{"run", dir}}.start(t, dir)
				if got := r.wait(); got != e.want {
					t.Errorf("sockd ended with %d, want %d", got, e.want)
				}
			})
		}
	})
	t.Logf("promise N4: as process 1 the exit status was right for %d exit codes and %d signals", len(codes), len(sigs))
}

// A unit that cannot be started ends sockd with 127.
func TestPid1NotStarted(t *testing.T) {
	needNamespaces(t)
	dir := shortDir(t)
	write(t, dir, "main.toml", "[service]\nexec = \"/nowhere/main\"\nrestart = \"no\"\nstart = \"boot\"\nessential = true\n")
	r := world{Namespaces: asPid1, Args: []string{"run", dir}}.start(t, dir)
	if code := r.wait(); code != 127 {
		t.Errorf("ended with %d; it said\n%s", code, r.said())
	}
}

// records follows the events of a running sockd and returns the exit records of a
// unit, until there are n.
func records(t *testing.T, dir, unit string, n int) map[int]supervisor.Event {
	t.Helper()
	got := map[int]supervisor.Event{}
	for e := range events(t, dir) {
		if e.What == "lost" {
			t.Fatal(e.Because)
		}
		if e.Unit != unit || e.What != "exited" {
			continue
		}
		if _, twice := got[e.Instance]; twice {
			t.Errorf("two records of %s@%d", unit, e.Instance)
		}
		if got[e.Instance] = e; len(got) == n {
			break
		}
	}
	return got
}

// events are those of a running sockd, past and to come, until the loop is left.
func events(t *testing.T, dir string) func(yield func(supervisor.Event) bool) {
	return func(yield func(supervisor.Event) bool) {
		c := http.Client{Transport: socketTransport(filepath.Join(dir, "run", supervisor.ControlSocket)), Timeout: patience}
		res, err := c.Get("http://sockd/v1/events")
		if err != nil {
			t.Error(err)
			return
		}
		defer res.Body.Close()
		sc := bufio.NewScanner(res.Body)
		for sc.Scan() {
			var e supervisor.Event
			if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
				t.Error(err)
				return
			}
			if !yield(e) {
				return
			}
		}
		t.Errorf("events ended: %v", sc.Err())
	}
}

// Every exit code and every signal is in the records, as they were.
func TestPid1ExitRecords(t *testing.T) {
	needNamespaces(t)
	dir := shortDir(t)
	probe := filepath.Join(built(t), "probe")
	write(t, dir, "codes.toml", fmt.Sprintf("[service]\nexec = [%q, \"exit-by-instance\"]\nrestart = \"no\"\nstart = \"boot\"\ninstances = 256\n", probe))
	write(t, dir, "signals.toml", fmt.Sprintf("[service]\nexec = [%q, \"die-by-instance\"]\nrestart = \"no\"\nstart = \"boot\"\ninstances = 64\nstop_signal = \"SIGKILL\"\n", probe))
	r := world{Namespaces: asPid1, Args: []string{"run", dir}}.start(t, dir)
	r.line("stopping|codes@1 starting")
	for i, e := range records(t, dir, "codes", 256) {
		if e.Exit.Code != i-1 || e.Exit.Signal != "" {
			t.Errorf("codes@%d: %+v", i, *e.Exit)
		}
	}
	sigs := terminating()
	for i, e := range records(t, dir, "signals", len(sigs)) {
		want := unix.SignalName(unix.Signal(i))
		switch {
		case i == 32 || i == 33: // no program may use them: the C library does
			want = fmt.Sprint("signal ", i)
		case i >= 34:
			want = strings.TrimSuffix(fmt.Sprint("SIGRTMIN+", i-34), "+0")
		}
		if e.Exit.Signal != want {
			t.Errorf("signals@%d: %+v, want %s", i, *e.Exit, want)
		}
	}
	r.signal(unix.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	t.Logf("promise N4: 256 exit codes and %d signals each in one record", len(sigs))
}

// What process 1 does with each signal, as docs/containers.md says.
func TestPid1Signals(t *testing.T) {
	needNamespaces(t)
	dir := shortDir(t)
	probe := filepath.Join(built(t), "probe")
	write(t, dir, "web.toml", fmt.Sprintf("[service]\nexec = [%q, \"serve\"]\nready = \"notify\"\nstart = \"boot\"\n[socket.s]\nlisten = \"unix://./s.sock\"\n", probe))
	r := world{Namespaces: asPid1, Args: []string{"run", dir}}.start(t, dir)
	r.line("web@1 ready")
	before, err := served("unix", filepath.Join(dir, "s.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ignored := 0
	for sig := 1; sig <= 64; sig++ {
		switch unix.Signal(sig) {
		case unix.SIGTERM, unix.SIGINT, unix.SIGKILL, unix.SIGSTOP: // they do what they say
		case unix.SIGILL, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV: // they say that sockd itself is broken
		default:
			ignored++
			r.signal(unix.Signal(sig))
			if got, err := served("unix", filepath.Join(dir, "s.sock")); err != nil || got != before {
				t.Fatalf("after signal %d: %q, %v; want %q", sig, got, err, before)
			}
		}
	}
	if st := statusOf(t, dir, "web"); st.Instances[0].State != "ready" || st.Instances[0].Starts != 1 {
		t.Errorf("%+v", st.Instances[0])
	}
	r.signal(unix.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	t.Logf("promise N1: process 1 and its service went on after %d signals, and left in order after SIGTERM", ignored)
}

// TERM stops all within the grace period, also what does not want to.
func TestPid1Grace(t *testing.T) {
	needNamespaces(t)
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		dir := shortDir(t)
		write(t, dir, "deaf.toml", fmt.Sprintf("[service]\nexec = [%q, \"deaf\"]\nready = \"notify\"\nstart = \"boot\"\nstop_timeout = \"200ms\"\n", filepath.Join(built(t), "probe")))
		r := world{Namespaces: asPid1, Args: []string{"run", dir}}.start(t, dir)
		r.line("deaf@1 ready")
		r.signal(sig)
		r.line("deaf@1 killing")
		if code := r.wait(); code != 0 {
			t.Errorf("%v: ended with %d", sig, code)
		}
	}
}

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
	out, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Namespaces, w.Args, w.stdout = asPid1, []string{"run", "--log-format", "json", dir}, write
	r := w.start(t, dir)
	write.Close()
	r.line(`"ready"`)

	told := map[string]int64{} // when a run told the time before it ended
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
	if len(calm) == 0 || len(busy) == 0 {
		t.Fatalf("%d exits before and %d meanwhile", len(calm), len(busy))
	}
	whole := time.Duration(over - begun).Round(time.Millisecond)
	t.Logf("promise N4: %d orphans reaped in %v, none left; exits told after %s, before that %s; the keeper ran for %v and waited %v for a processor",
		n, whole, lateness(busy), lateness(calm), ran, waited)
	// An exit that waited for the orphans would wait half of the time on average.
	if median := busy[len(busy)/2]; median > whole/20 {
		t.Errorf("most exits were told %v late, of %v", median, whole)
	}
	if worst := slices.Max(busy); *full && worst > 100*time.Millisecond && waited <= ran {
		t.Errorf("an exit was told %v late, and it was not for want of a processor", worst)
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
