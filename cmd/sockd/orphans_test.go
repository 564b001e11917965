package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor"
)

var orphanRounds = flag.Int("orphans", 20, "how often TestKilledKeeper kills the keeper")

// settled waits until every instance that is to be there is ready.
func (r *running) settled(dir string, units ...string) {
	r.t.Helper()
	c := supervisor.NewClient(filepath.Join(dir, "run"))
	late := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond) // nobody tells when the socket of another process is there
	defer tick.Stop()
	for {
		ready := 0
		for _, name := range units {
			if u, err := c.Unit(r.t.Context(), name); err == nil && !slices.ContainsFunc(u.Instances, func(in supervisor.InstanceStatus) bool { return in.State != "ready" }) {
				ready++
			}
		}
		if ready == len(units) {
			return
		}
		select {
		case <-tick.C:
		case <-r.ended:
			r.t.Fatalf("sockd ended with %d: %q", r.cmd.ProcessState.ExitCode(), drain(r.lines))
		case <-late:
			r.t.Fatalf("not ready: %q", drain(r.lines))
		}
	}
}

func drain(lines chan string) (all []string) {
	for len(lines) > 0 {
		all = append(all, <-lines)
	}
	return all
}

// A keeper that is killed leaves its services; the next sockd goes on with them.
func TestKilledKeeper(t *testing.T) {
	file := variant(t, "v1.0.0", false)
	dir := t.TempDir()
	upgradeUnits(t, dir)
	r := startFile(t, dir, file, "run", dir)
	r.line("path@1 ready")
	_, _, at := facts(t, dir)
	network, address, _ := strings.Cut(at["web"], " ")
	if err := askPid(network, address); err != nil {
		t.Fatal(err)
	}
	all := []string{"web", "pair", "path"}
	r.settled(dir, all...)
	sockets, pids, _ := facts(t, dir)
	clients := newLoad(3, at["web"], at["pair"], at["path"])
	rounds := *orphanRounds
	if testing.Short() {
		rounds = min(rounds, 4)
	}
	for i := range rounds {
		r.signal(syscall.SIGKILL)
		before := r
		r = startFile(t, dir, file, "run", dir)
		<-before.ended // its supervisor has noticed, and answers no more
		r.settled(dir, all...)
		nowSockets, nowPids, _ := facts(t, dir)
		if !slices.Equal(sockets, nowSockets) || !slices.Equal(pids, nowPids) {
			t.Fatalf("round %d: sockets\n%q\nand processes\n%q\nhave become\n%q\n%q\n%q", i, sockets, pids, nowSockets, nowPids, drain(r.lines))
		}
	}
	clients.end(t)
	if seconds, _ := filepath.Glob(filepath.Join(dir, "*.second")); len(seconds) > 0 {
		t.Errorf("second copies: %v", seconds)
	}
	for _, u := range all {
		if n, want := len(births(filepath.Join(dir, u))), map[string]int{"web": 1, "pair": 2, "path": 1}[u]; n != want {
			t.Errorf("%s: %d processes, want %d", u, n, want)
		}
	}
	// An adopted run is stopped and missed as any other.
	if _, stderr, code := sockd(t, dir, "stop", "pair"); code != 0 {
		t.Errorf("stop: %d %s", code, stderr)
	}
	pid, _ := strconv.Atoi(births(filepath.Join(dir, "web"))[0])
	syscall.Kill(pid, syscall.SIGKILL)
	r.line(fmt.Sprintf(`web@1 exited: .*SIGKILL.*pid %d`, pid))
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	for _, left := range []string{"run", "path.sock", ".path.sock.sockd"} {
		if _, err := os.Lstat(filepath.Join(dir, left)); err == nil {
			t.Errorf("%s is left", left)
		}
	}
	for _, u := range append(all, "brief") {
		for _, pid := range births(filepath.Join(dir, u)) {
			if alive(pid, filepath.Join(dir, u)) {
				t.Errorf("%s: process %s is left", u, pid)
			}
		}
	}
	t.Logf("promise N5: keeper killed and sockd started again %d times: one copy of each service, the same %d sockets and %d processes; %d connections served meanwhile, %d failed",
		rounds, len(sockets), len(pids), clients.served.Load(), clients.failed.Load())
}

// alive tells whether a process of the service at place is there, and not another one
// that has its number by now.
func alive(pid, place string) bool {
	env, _ := os.ReadFile("/proc/" + pid + "/environ") // empty of a zombie
	return strings.Contains(string(env), "TEST_PLACE="+place+"\x00")
}

func TestOrphansAreEnded(t *testing.T) {
	file := variant(t, "v1.0.0", false)
	dir := t.TempDir()
	upgradeUnits(t, dir)
	os.Remove(filepath.Join(dir, "brief.toml"))
	r := startFile(t, dir, file, "run", dir)
	r.settled(dir, "pair", "path")
	r.signal(syscall.SIGKILL)
	<-r.ended
	os.Remove(filepath.Join(dir, "path.toml"))
	r = startFile(t, dir, file, "run", dir)
	r.line("path@1 orphan ended")
	r.line("pair@2 orphan adopted")
	r.settled(dir, "pair")
	if _, err := os.Lstat(filepath.Join(dir, "path.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the path of a unit that is gone: %v", err)
	}
	r.signal(syscall.SIGKILL)
	<-r.ended
	r = startFile(t, dir, file, "run", "--orphans", "stop", dir)
	r.settled(dir, "pair")
	if n := len(births(filepath.Join(dir, "pair"))); n != 4 {
		t.Errorf("%d processes of pair, want 2 and 2", n)
	}
	if seconds, _ := filepath.Glob(filepath.Join(dir, "*.second")); len(seconds) > 0 {
		t.Errorf("second copies: %v", seconds)
	}
}

// A start that fails leaves the orphans alone: there is nothing better to have.
func TestOrphansOutliveAFailedStart(t *testing.T) {
	file := variant(t, "v1.0.0", false)
	dir := t.TempDir()
	upgradeUnits(t, dir)
	os.Remove(filepath.Join(dir, "brief.toml"))
	os.Remove(filepath.Join(dir, "web.toml")) // nobody has its socket
	r := startFile(t, dir, file, "run", dir)
	r.settled(dir, "pair", "path")
	sockets, pids, at := facts(t, dir)
	r.signal(syscall.SIGKILL)
	<-r.ended
	_, address, _ := strings.Cut(at["pair"], " ")
	write(t, dir, "clash.toml", fmt.Sprintf("[service]\nexec = \"/bin/true\"\n[socket.s]\nlisten = \"tcp://%s\"\n", address))
	r = startFile(t, dir, file, "run", dir)
	if code := r.wait(); code != exitFailed {
		t.Errorf("two units on one port: %d", code)
	}
	os.Remove(filepath.Join(dir, "clash.toml"))
	r = startFile(t, dir, file, "run", dir)
	r.settled(dir, "pair", "path")
	if nowSockets, nowPids, _ := facts(t, dir); !slices.Equal(sockets, nowSockets) || !slices.Equal(pids, nowPids) {
		a, _ := json.Marshal([]any{sockets, pids, nowSockets, nowPids, drain(r.lines)})
		t.Errorf("%s", a)
	}
}
