package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// scoreOf is what the OOM killer adds to the memory that a process has.
func scoreOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// Where it may, the keeper has the OOM killer take others first: services, which are what
// they were without sockd, and then the supervisor. So does the one of another version.
func TestOutOfMemoryTheKeeperIsLast(t *testing.T) {
	const ownScore = "17" // of whoever starts sockd
	own := scoreOf(t, os.Getpid())
	probe := os.WriteFile("/proc/self/oom_score_adj", []byte("-950"), 0)
	os.WriteFile("/proc/self/oom_score_adj", []byte(own), 0)
	if probe != nil {
		t.Skipf("needs CAP_SYS_RESOURCE: %v", probe)
	}
	dir := t.TempDir()
	write(t, dir, "cat.toml", "[service]\nexec = [\"sleep\", \"1000\"]\n")
	file := variant(t, "v1.0.0", false)
	cmd := command(t, dir, "-c", `echo `+ownScore+` >/proc/self/oom_score_adj && exec "$0" run cat.toml`, file)
	cmd.Path, cmd.Args[0] = "/bin/sh", "sh"
	r := begin(t, cmd)
	gen := 0
	look := func(when string) {
		t.Helper()
		r.line(`cat@1 ready`)
		gen++
		_, pids, _ := facts(t, dir)
		var service int
		if len(pids) != 1 {
			t.Fatalf("%s: %q", when, pids)
		}
		fmt.Sscanf(pids[0], fmt.Sprintf("cat@1.%d pid %%d", gen), &service)
		keeper := r.cmd.Process.Pid
		got := []string{scoreOf(t, keeper), scoreOf(t, supervisorUnder(t, keeper)), scoreOf(t, service)}
		if want := []string{"-950", "-500", ownScore}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: keeper, supervisor and service have %v, want %v", when, got, want)
		}
	}
	look("at first")
	restart := func() {
		t.Helper()
		if stdout, stderr, code := sockd(t, dir, "restart", "cat"); code != exitDone {
			t.Fatalf("restart: %d %q %q", code, stdout, stderr)
		}
	}
	if stdout, stderr, code := sockd(t, dir, "upgrade", file); code != exitDone {
		t.Fatalf("upgrade: %d %q %q", code, stdout, stderr)
	}
	restart()
	look("after an upgrade")
	unix.Kill(supervisorUnder(t, r.cmd.Process.Pid), unix.SIGKILL)
	restart()
	look("after a crash")
	t.Logf("promise N1: keeper, supervisor and services had their scores for the OOM killer 3 of 3 times, over an upgrade and a crash")
}
