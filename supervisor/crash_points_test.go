package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

var points = flag.Int("points", 2, "how often a supervisor dies at each crash point")

// A tree is a keeper, its supervisors that die, and services that leave facts.
type tree struct {
	t        *testing.T
	dir      string
	cmd      *exec.Cmd
	client   *Client
	out, log bytes.Buffer
	killed   map[int]bool // services
	stories  int
}

// growTree starts one whose supervisors die as the environment says.
func growTree(t *testing.T, env ...string) *tree {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir()}
	facts := "TEST_DIR=" + f.dir
	f.write("web", "[service]\nrole = factual TEST_PAIR=1 "+facts+"\nready = \"notify\"\nrestart_delay = \"10ms\"\n[socket.http]\nlisten = \"unix://./web.sock\"\n")
	f.write("work", "[service]\nrole = factual "+facts+"\nready = \"notify\"\nrestart_delay = \"10ms\"\nrestart_delay_max = \"20ms\"\n")
	return plantTree(t, f.dir, env...)
}

// plantTree starts one on the units of a folder.
func plantTree(t *testing.T, dir string, env ...string) *tree {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tr := &tree{t: t, dir: dir, cmd: exec.Command(exe), client: NewClient(filepath.Join(dir, "run")), killed: map[int]bool{}}
	tr.cmd.Env = append(append(os.Environ(), "TEST_ROLE=keep", "TEST_DIR="+dir), env...)
	tr.cmd.Stdout, tr.cmd.Stderr = &tr.out, &tr.log
	if err := tr.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		tr.cmd.Process.Kill()
		for _, pid := range bornIn(dir) { // of a test that has failed
			if env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); bytes.Contains(env, []byte("TEST_DIR="+dir+"\x00")) {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if t.Failed() {
			lines := strings.Split(tr.log.String(), "\n")
			t.Logf("it said at the end:\n%s", strings.Join(lines[max(0, len(lines)-80):], "\n"))
		}
	})
	return tr
}

// insist gives an order until it is acknowledged.
func (tr *tree) insist(what string, order func(context.Context) error) {
	tr.t.Helper()
	ctx, cancel := context.WithTimeout(tr.t.Context(), patience)
	defer cancel()
	for {
		err := order(ctx)
		if err == nil {
			return
		}
		if api := (*APIError)(nil); errors.As(err, &api) || ctx.Err() != nil {
			tr.t.Fatalf("%s: %v", what, err)
		}
	}
}

func (tr *tree) verb(unit, verb, want string) {
	tr.t.Helper()
	tr.insist(verb+" "+unit, func(ctx context.Context) error {
		out, err := tr.client.Verb(ctx, unit, verb, true, patience)
		if err == nil && out.Outcome != want {
			tr.t.Errorf("%s %s: %+v", verb, unit, out)
		}
		return err
	})
}

// awaitControl waits until the control socket is there: a first supervisor may die before.
func (tr *tree) awaitControl() {
	tr.t.Helper()
	waitFor(tr.t, "the control socket", func() bool {
		_, err := tr.client.Units(tr.t.Context())
		return err == nil
	})
}

func (tr *tree) served() {
	tr.t.Helper()
	if _, err := ask("unix", filepath.Join(tr.dir, "web.sock")); err != nil {
		tr.t.Fatal(err)
	}
}

// story is one of everything that can happen to units.
func (tr *tree) story() {
	tr.t.Helper()
	tr.served()
	tr.verb("web", "restart", Done)
	tr.killWork()
	tr.stories++
	extra := filepath.Join(tr.dir, fmt.Sprintf("extra%d.toml", tr.stories))
	text, err := os.ReadFile(filepath.Join(tr.dir, "work.toml"))
	if err != nil {
		tr.t.Fatal(err)
	}
	if err := os.WriteFile(extra, append(text, "[socket.x]\nlisten = [\"unix://./extra.sock\", \"tcp://127.0.0.1:0\"]\n"...), 0o644); err != nil {
		tr.t.Fatal(err)
	}
	tr.insist("reload", func(ctx context.Context) error { _, err := tr.client.Reload(ctx, patience); return err })
	if _, err := ask("unix", filepath.Join(tr.dir, "extra.sock")); err != nil {
		tr.t.Fatal(err)
	}
	tr.verb("web", "stop", Done)
	if st, err := tr.status("web"); err != nil || st.Up || st.State != "stopped" {
		tr.t.Errorf("stopped, and is %+v, %v", st, err)
	}
	os.Remove(extra)
	tr.insist("reload", func(ctx context.Context) error { _, err := tr.client.Reload(ctx, patience); return err })
	tr.verb("web", "start", Done)
}

func (tr *tree) status(unit string) (st UnitStatus, err error) {
	tr.insist("status", func(ctx context.Context) error { st, err = tr.client.Unit(ctx, unit); return err })
	return st, err
}

// killWork kills the process of work, once it is ready.
func (tr *tree) killWork() {
	pid := 0
	waitFor(tr.t, "work", func() bool {
		st, err := tr.client.Unit(tr.t.Context(), "work")
		if err != nil || st.State != "ready" {
			return false
		}
		pid = st.Instances[0].Runs[0].Pid
		return true
	})
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // it has ended meanwhile: killed before, and that was not heard of
	}
	defer unix.Close(fd)
	if slices.Contains(slices.Collect(maps.Values(bornIn(tr.dir))), pid) {
		tr.killed[pid] = true
		unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

// fell stops everything and compares what sockd says with what was.
func (tr *tree) fell() (processes, lines int) {
	tr.t.Helper()
	born := bornIn(tr.dir)
	tr.stop(born)
	return len(born), tr.lines(born)
}

// stop ends everything: nothing is left, and each process has one exit record.
func (tr *tree) stop(born map[string]int) {
	t := tr.t
	t.Helper()
	tr.cmd.Process.Signal(syscall.SIGTERM)
	if err := tr.cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(tr.dir, "violations")); err == nil {
		t.Errorf("services say:\n%s", text)
	}
	for _, pattern := range []string{"*.sock", "run"} {
		if left, _ := filepath.Glob(filepath.Join(tr.dir, pattern)); len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
	}
	exits := tr.exits()
	for id, pid := range born {
		if len(exits[id]) != 1 {
			t.Errorf("%s, pid %d: %d exit records %v", id, pid, len(exits[id]), exits[id])
		}
	}
}

// exits reads the exit records, and wants a cause for each.
func (tr *tree) exits() map[string][]string {
	exits := map[string][]string{}
	for line := range bytes.Lines(tr.log.Bytes()) {
		var r struct {
			Msg, Unit, Cause string
			Gen              uint64 `json:"generation"`
			Pid              int
		}
		if json.Unmarshal(line, &r) != nil || r.Msg != "exited" && r.Msg != "not started" {
			continue
		}
		id := fmt.Sprintf("%s.%d", r.Unit, r.Gen)
		exits[id] = append(exits[id], r.Cause)
		if r.Cause != "stop" && r.Cause != orphanCause && !(r.Cause == "replaced" && r.Unit == "web") && !tr.killed[r.Pid] {
			tr.t.Errorf("it ended for no reason: %s", line)
		}
	}
	return exits
}

// lines wants every line once and in order.
func (tr *tree) lines(born map[string]int) (total int) {
	read := map[string]uint64{}
	for sc := bufio.NewScanner(&tr.out); sc.Scan(); {
		var l struct {
			Unit string
			Gen  uint64 `json:"generation"`
			Line string
		}
		n := uint64(0)
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			tr.t.Errorf("output: %q: %v", sc.Bytes(), err)
		}
		id := fmt.Sprintf("%s.%d", l.Unit, l.Gen)
		if _, err := fmt.Sscanf(l.Line, "line %d", &n); err != nil && tr.killed[born[id]] && strings.HasPrefix("line", l.Line) {
			continue // killed in the middle of a line
		} else if err != nil || n != read[id]+1 {
			tr.t.Errorf("%s: %q after line %d", id, l.Line, read[id])
		}
		read[id] = n
		total++
	}
	for id := range born {
		text, _ := os.ReadFile(filepath.Join(tr.dir, "lines."+id))
		if len(text) == 8 {
			if wrote := binary.LittleEndian.Uint64(text); read[id] != wrote && read[id] != wrote+1 {
				tr.t.Errorf("%s wrote %d lines, %d were read", id, wrote, read[id])
			}
		}
	}
	return total
}

// Wherever a supervisor dies, the next one goes on as if nothing had been.
func TestCrashPoints(t *testing.T) {
	if testing.Short() {
		t.Skip("many processes: without -short")
	}
	tr := growTree(t, fmt.Sprint("TEST_HITS=", *points))
	tr.awaitControl()
	file := filepath.Join(tr.dir, "deaths")
	open := func() (left []string) {
		had := deathsIn(file)
		for p := range crashPoints {
			if had[p] < *points {
				left = append(left, p)
			}
		}
		return left
	}
	stories := 0
	for ; len(open()) > 0; stories++ {
		if stories > *points*100 { // about 12 are enough for each time
			t.Fatalf("never died at %q in %d stories: %v", open(), stories, deathsIn(file))
		}
		tr.story()
		if t.Failed() {
			t.FailNow()
		}
	}
	deaths := 0
	for _, n := range deathsIn(file) {
		deaths += n
	}
	processes, lines := tr.fell()
	t.Logf("promise N4: %d deaths at %d crash points, at least %d each: %d processes, one exit record each", deaths, len(crashPoints), *points, processes)
	t.Logf("promise N6: %d deaths at crash points, %d lines, each once and in order", deaths, lines)
	t.Logf("promise N7: %d deaths at crash points, %d acknowledged orders held", deaths, 5*stories)
}

// A first supervisor that dies while it begins leaves no unit behind.
func TestCrashWhileItBegins(t *testing.T) {
	rounds := 5
	if testing.Short() {
		rounds = 1
	}
	if *points > 2 {
		rounds = 60
	}
	for i := range rounds {
		skip := 1 + rand.IntN(40)
		if rounds == 60 {
			skip = i + 1
		}
		tr := growTree(t, fmt.Sprint("TEST_SKIP=", skip))
		tr.awaitControl()
		tr.served()
		tr.verb("work", "start", Done)
		tr.fell()
		if t.Failed() {
			t.Fatalf("after it had died at visit %d of any point: %v", skip, deathsIn(filepath.Join(tr.dir, "deaths")))
		}
	}
	t.Logf("promise N7: %d first supervisors died while they began, every unit was started once", rounds)
}
