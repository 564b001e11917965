package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sockd/sockd/supervisor"
	"golang.org/x/sys/unix"
)

// full: everything that is counted. Takes minutes.
var full = flag.Bool("full", false, "every exit code and signal, 100,000 orphans, 1 % of a processor")

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
		c := http.Client{Transport: socketTransport(filepath.Join(dir, "run", supervisor.ControlSocket)), Timeout: 5 * patience} // all of it
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
	needDescriptors(t, 2000)
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
