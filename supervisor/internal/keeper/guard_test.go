package keeper_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A guarded is a keeper's process, and what it and its supervisors say.
type guarded struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
}

func guard(t *testing.T, env ...string) *guarded {
	t.Helper()
	g := &guarded{t, exec.Command("/proc/self/exe"), make(chan string, 16)}
	g.cmd.Env = append(os.Environ(), env...)
	out, err := g.cmd.StdoutPipe()
	ok(t, err)
	ok(t, g.cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer g.cmd.Wait()
		defer close(g.lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			g.lines <- in.Text()
		}
	}()
	t.Cleanup(func() {
		g.signal(unix.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			g.cmd.Process.Kill()
		}
	})
	return g
}

func (g *guarded) signal(sig unix.Signal) { g.cmd.Process.Signal(sig) }

// says waits for the next line, which is to begin so, and returns the rest. Lines that
// begin as one of but do may come before.
func (g *guarded) says(want string, but ...string) string {
	g.t.Helper()
	late := time.After(patience)
	for {
		select {
		case line := <-g.lines:
			if rest, is := strings.CutPrefix(line, want); is {
				return strings.TrimSpace(rest)
			}
			if !slices.ContainsFunc(but, func(b string) bool { return strings.HasPrefix(line, b) }) {
				g.t.Fatalf("%q, not %q", line, want)
			}
		case <-late:
			g.t.Fatalf("nobody says %q", want)
		}
	}
}

// A stopped supervisor reads nothing: the keeper goes on hearing signals, kills it when
// the watchdog says so, and the next one is told what it was told.
func TestStoppedSupervisorDoesNotStopItsKeeper(t *testing.T) {
	t.Parallel()
	g := guard(t, "GUARD_ROLE=mute")
	g.says("stops")
	g.signal(unix.SIGTERM)
	var n int
	fmt.Sscan(g.says("follows"), &n)
	if n < manyRuns/2 { // what it had asked for and the keeper had not come to died with it
		t.Errorf("%d runs are listed", n)
	}
	g.says("code 7 <nil>", "follows") // it acknowledges nothing: a busy machine may have it killed too
	t.Logf("promise N9: a supervisor stopped before %d pieces of news was replaced, and the next one heard the SIGTERM", 2*n)
}

// Safe mode lasts until somebody says otherwise: news without an acknowledgement, a
// long life and a death do not end it, SIGHUP does.
func TestSafeModeLasts(t *testing.T) {
	t.Parallel()
	healed := filepath.Join(t.TempDir(), "healed")
	g := guard(t, "GUARD_ROLE=dying", "GUARD_HEALED="+healed)
	var pid int
	fmt.Sscan(g.says("safe"), &pid)
	select {
	case line := <-g.lines:
		t.Fatalf("then %q", line)
	case <-time.After(2 * guardWatchdog): // it is not killed: nothing is to be heard
	}
	ok(t, unix.Kill(pid, unix.SIGKILL))
	if rest := g.says("safe"); !strings.Contains(rest, "SIGKILL") {
		t.Errorf("the reason is %q", rest)
	}
	g.signal(unix.SIGHUP) // and it is still ill: it dies as often as at first
	if rest := g.says("safe"); !strings.Contains(rest, "exit status 9") {
		t.Errorf("the reason is %q", rest)
	}
	f, err := os.Create(healed)
	ok(t, err)
	f.Close()
	g.signal(unix.SIGHUP)
	g.says("ordinary")
	g.signal(unix.SIGTERM)
	g.says("code 0 <nil>")
	t.Logf("promise N9: safe mode outlived %v without an acknowledgement and the death of its supervisor, and ended with SIGHUP twice of 2", 2*guardWatchdog)
}

// Where supervisors die in safe mode too, the next is told to do without output; where
// that one dies when it is told to end all, the keeper ends the runs and makes the records.
func TestSafeModeThatDies(t *testing.T) {
	t.Parallel()
	g := guard(t, "GUARD_ROLE=dying", "GUARD_HEALED="+filepath.Join(t.TempDir(), "healed"), "GUARD_WEAK=1")
	if rest := g.says("spills", "msg="); !strings.Contains(rest, "exit status 8") {
		t.Errorf("the reason is %q", rest)
	}
	g.signal(unix.SIGTERM)
	records := map[string]bool{}
	for range 2 {
		records[g.says("msg=exited", "msg=")] = true
	}
	g.says("code 1 <nil>")
	if !records[`unit=left instance=1 generation=1 because="killed by SIGTERM"`] || !records[`unit=gone instance=1 generation=2 because="exit status 0"`] {
		t.Errorf("records: %v", records)
	}
	t.Logf("promise N4: 2 of 2 exit records by a keeper whose supervisors had died in safe mode")
}
