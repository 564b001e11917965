package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor"
)

var upgradeRounds = flag.Int("upgrades", 6, "how many upgrades TestUpgradesUnderLoad does")

// facts are what an upgrade must not change: sockets and processes.
func facts(t *testing.T, dir string) (sockets, pids []string, at map[string]string) {
	t.Helper()
	all, err := supervisor.NewClient(filepath.Join(dir, "run")).Units(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at = map[string]string{}
	for _, u := range all {
		for _, k := range u.Sockets {
			sockets = append(sockets, fmt.Sprintf("%s %s@%d %s inode %d", u.Name, k.Name, k.Instance, k.Address, k.Inode))
			at[u.Name] = k.Network + " " + k.Address
		}
		for _, in := range u.Instances {
			for _, r := range in.Runs {
				if u.Name != "brief" {
					pids = append(pids, fmt.Sprintf("%s@%d.%d pid %d", u.Name, in.Instance, r.Gen, r.Pid))
				}
			}
		}
	}
	return sockets, pids, at
}

// A load connects again and again until it is stopped.
type load struct {
	stop   context.CancelFunc
	wg     sync.WaitGroup
	served atomic.Int64
	failed atomic.Int64
	first  atomic.Pointer[string] // what failed first
}

func newLoad(clients int, addresses ...string) *load {
	ctx, stop := context.WithCancel(context.Background())
	l := &load{stop: stop}
	for i := range clients {
		network, address, _ := strings.Cut(addresses[i%len(addresses)], " ")
		l.wg.Go(func() {
			for ctx.Err() == nil {
				if err := askPid(network, address); err != nil {
					l.failed.Add(1)
					text := err.Error()
					l.first.CompareAndSwap(nil, &text)
				} else {
					l.served.Add(1)
				}
			}
		})
	}
	return l
}

func askPid(network, address string) error {
	c, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil {
		_, err = strconv.Atoi(strings.TrimSpace(line))
	}
	return err
}

func (l *load) end(t *testing.T) {
	t.Helper()
	l.stop()
	l.wg.Wait()
	if l.failed.Load() > 0 {
		t.Errorf("%d connections failed, the first with: %s", l.failed.Load(), *l.first.Load())
	}
}

// A silence is the longest time that the control socket has not answered.
type silence struct {
	stop    context.CancelFunc
	done    chan struct{}
	longest time.Duration
	answers int
}

func newSilence(dir string) *silence {
	ctx, stop := context.WithCancel(context.Background())
	s := &silence{stop: stop, done: make(chan struct{})}
	c := supervisor.NewClient(filepath.Join(dir, "run"))
	go func() {
		defer close(s.done)
		for last := time.Now(); ctx.Err() == nil; {
			if _, err := c.Unit(ctx, "web"); err == nil { // one that breaks off is followed by another
				s.longest = max(s.longest, time.Since(last))
				s.answers++
				last = time.Now()
			}
		}
	}()
	return s
}

func (s *silence) end() { s.stop(); <-s.done }

func TestUpgradesUnderLoad(t *testing.T) {
	versions := []string{"v1.0.0", "v1.1.0"}
	files := []string{variant(t, versions[0], false), variant(t, versions[1], false)}
	dir := t.TempDir()
	upgradeUnits(t, dir)
	r := startFile(t, dir, files[0], "run", dir)
	r.settled(dir, "pair", "path")
	keeperPid := r.cmd.Process.Pid
	_, _, at := facts(t, dir)
	network, address, _ := strings.Cut(at["web"], " ")
	if err := askPid(network, address); err != nil {
		t.Fatal(err)
	}
	r.settled(dir, "web", "pair", "path")
	sockets, pids, _ := facts(t, dir)
	clients, control := newLoad(6, at["web"], at["pair"], at["path"]), newSilence(dir)
	var longest time.Duration
	before := 0
	for i := range *upgradeRounds {
		to := (i + 1) % 2
		begun := time.Now()
		stdout, stderr, code := sockd(t, dir, "upgrade", "--allow-older", files[to])
		longest = max(longest, time.Since(begun))
		if want := fmt.Sprintf("upgraded from %s to %s\n", versions[1-to], versions[to]); code != exitDone || stdout != want {
			t.Fatalf("upgrade %d: %d %q %q\n%s", i, code, stdout, stderr, r.said())
		}
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", keeperPid)); err != nil || exe != files[to] {
			t.Fatalf("upgrade %d: the keeper is %s, %v", i, exe, err)
		}
		nowSockets, nowPids, _ := facts(t, dir)
		if !slices.Equal(sockets, nowSockets) || !slices.Equal(pids, nowPids) {
			t.Fatalf("upgrade %d: sockets\n%q\nand processes\n%q\nhave become\n%q\n%q", i, sockets, pids, nowSockets, nowPids)
		}
		if i == 1 {
			before = descriptors(t, keeperPid)
		}
	}
	clients.end(t)
	control.end()
	if control.longest > patience/6 { // how long it really is, is said below: goal 1s
		t.Errorf("no answer on the control socket for %v", control.longest)
	}
	// The brief service's come and go, and go for good with it: what an upgrade forgets, stays.
	sockd(t, dir, "stop", "brief")
	now := descriptors(t, keeperPid)
	for end := time.Now().Add(patience); now > before && time.Now().Before(end); now = descriptors(t, keeperPid) {
		runtime.Gosched()
	}
	if *upgradeRounds > 2 && now > before {
		t.Errorf("the keeper has %d descriptors, and had %d", now, before)
	}
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	if seconds, _ := filepath.Glob(filepath.Join(dir, "*.second")); len(seconds) > 0 {
		t.Errorf("second copies: %v", seconds)
	}
	exits := map[string]int{} // by pid; the last one may have been told to leave before it left by itself
	exited := regexp.MustCompile(`brief@1 exited: (?:exit status 3|[^(]*SIGTERM).*pid (\d+)`)
	for len(r.lines) > 0 {
		if m := exited.FindStringSubmatch(<-r.lines); m != nil {
			exits[m[1]]++
		}
	}
	born := births(filepath.Join(dir, "brief"))
	had := map[string]int{} // a number may have been another's before
	for _, pid := range born {
		had[pid]++
	}
	for pid, n := range had {
		if exits[pid] != n {
			t.Errorf("%d processes had pid %s, with %d exit records", n, pid, exits[pid])
		}
	}
	t.Logf("promise N1: %d upgrades of every line of code, old to new to old: the same %d sockets and %d processes", *upgradeRounds, len(sockets), len(pids))
	t.Logf("promise N2: %d upgrades under load: %d connections served, %d failed", *upgradeRounds, clients.served.Load(), clients.failed.Load())
	t.Logf("promise N4: %d upgrades: %d processes ended meanwhile, each with one exit record", *upgradeRounds, len(born))
	t.Logf("promise N9: %d upgrades: longest %v, longest silence of the control socket %v in %d answers", *upgradeRounds, longest.Round(time.Millisecond), control.longest.Round(time.Millisecond), control.answers)
}

// descriptors counts those of a keeper, but for what it opens when it needs it and
// then has ready: /dev/null, and the cgroup of the next run.
func descriptors(t *testing.T, pid int) (n int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if to, _ := os.Readlink(dir + e.Name()); to != os.DevNull && !strings.HasPrefix(to, "/sys/fs/cgroup/") {
			n++
		}
	}
	return n
}

func TestUpgradeToWhatDoesNotWork(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long, and the race detector sees nothing new in it: without -short")
	}
	good, broken := variant(t, "v1.1.0", false), variant(t, "v1.2.0", true)
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put := func(name string, mode os.FileMode, text []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, text, mode); err != nil {
			t.Fatal(err)
		}
		os.Chmod(file, mode)
		return file
	}
	other := "/bin/true"
	golang, err := exec.LookPath("go")
	if err == nil {
		golang, err = filepath.EvalSymlinks(golang)
	}
	if err != nil {
		t.Fatal(err)
	}
	foreign := slices.Clone(whole)
	foreign[18], foreign[19] = 8, 0 // e_machine: MIPS
	upgradeUnits(t, dir)
	r := startFile(t, dir, good, "run", dir)
	r.settled(dir, "pair", "path")
	sockets, pids, at := facts(t, dir)
	clients := newLoad(2, at["pair"], at["path"])
	for _, c := range []struct {
		name, file string
		code       int
		says       string
	}{
		{"missing", filepath.Join(dir, "nothing"), exitFailed, "no such file"},
		{"a folder", dir, exitFailed, "is not a regular file"},
		{"not executable", put("plain", 0o644, whole), exitFailed, "is not executable"},
		{"anybody's", put("anybody", 0o777, whole), exitFailed, "may be written by everybody"},
		{"empty", put("empty", 0o755, nil), exitFailed, "is no program"},
		{"a script", put("script", 0o755, []byte("#!/bin/sh\nexit 0\n")), exitFailed, "is no program"},
		{"half of it", put("half", 0o755, whole[:len(whole)/2]), exitFailed, "truncated"},
		{"its first page", put("page", 0o755, whole[:4096]), exitFailed, "truncated"},
		{"for another machine", put("mips", 0o755, foreign), exitFailed, "is for EM_MIPS"},
		{"not written in Go", other, exitFailed, "is not sockd"},
		{"another program", golang, exitFailed, "is not sockd but cmd/go"},
		{"older", variant(t, "v1.0.0", false), exitFailed, "v1.0.0 is older than v1.1.0"},
		{"another wire", as(t, broken, "wire"), exitFailed, " of the messages between keeper and supervisor"},
		{"another state", as(t, broken, "state"), exitFailed, "of saved units"},
		{"another keeper", as(t, broken, "keeper"), exitFailed, "of a keeper's state"},
		{"says nothing", as(t, broken, "mute"), exitFailed, "is not sockd: asked who it is"},
		{"crashes", as(t, broken, "crash"), exitFailed, "it ended with exit status 2"},
		{"dies as a supervisor", as(t, broken, "dies"), exitRolledBack, "ended 3 times before it served: exit status 7"},
		{"dies as a keeper", as(t, broken, "stranger"), exitRolledBack, "could not take the keeper's place"},
	} {
		stdout, stderr, code := sockd(t, dir, "upgrade", c.file)
		if code != c.code || stdout != "" || !strings.Contains(stderr, c.says) {
			t.Errorf("%s: %d %q %q; want %d, %q", c.name, code, stdout, stderr, c.code, c.says)
		}
		nowSockets, nowPids, _ := facts(t, dir)
		if !slices.Equal(sockets, nowSockets) || !slices.Equal(pids, nowPids) {
			t.Errorf("%s: sockets\n%q\nand processes\n%q\nhave become\n%q\n%q", c.name, sockets, pids, nowSockets, nowPids)
		}
		if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.cmd.Process.Pid)); exe != good {
			t.Errorf("%s: the keeper is %s", c.name, exe)
		}
	}
	if stdout, stderr, code := sockd(t, dir, "upgrade"); code != exitDone || stdout != "upgraded from v1.1.0 to v1.1.0\n" {
		t.Errorf("after all that, to itself: %d %q %q", code, stdout, stderr)
	}
	if stdout, stderr, code := sockd(t, dir, "upgrade", "-o", "json"); code != exitDone || !strings.Contains(stdout, `"outcome": "done"`) {
		t.Errorf("once more: %d %q %q", code, stdout, stderr)
	}
	if status, answer := getOver(t, dir, "/v1/upgrade?id=zzz"); status != http.StatusNotFound || !strings.Contains(answer, `\"zzz\"`) {
		t.Errorf("an upgrade that never was: %d %q", status, answer)
	}
	clients.end(t)
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("ended with %d", code)
	}
}

// getOver asks a running sockd over its control socket.
func getOver(t *testing.T, dir, path string) (status int, answer string) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dir, "run", supervisor.ControlSocket))
	}}}
	req, err := http.NewRequestWithContext(ctx, "GET", "http://sockd"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}
