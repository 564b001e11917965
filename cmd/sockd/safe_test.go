package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// talkUnits: web writes much for each connection; calm does nothing, until it is killed.
const talkUnits = `
-- web
[service]
exec = ["PROBE", "talk", "4096"]
ready = "notify"
start = "boot"
[socket.s]
listen = "unix://./s.sock"
-- calm
[service]
exec = ["PROBE", "wait"]
start = "boot"
`

// deafUnit does not leave when told to, and neither does its child.
const deafUnit = `
-- deaf
[service]
exec = ["PROBE", "deaf"]
ready = "notify"
start = "boot"
stop_timeout = "1s"
`

// A safe is a sockd in safe mode.
type safe struct {
	*running
	dir, address string
	ended        []string // lines of standard error, as far as they were read
}

// safeMode starts a sockd and kills its supervisors until one is in safe mode.
func safeMode(t *testing.T, units string) *safe {
	t.Helper()
	dir := shortDir(t)
	for _, unit := range strings.Split(strings.ReplaceAll(units, "PROBE", filepath.Join(built(t), "probe")), "\n-- ")[1:] {
		name, text, _ := strings.Cut(unit, "\n")
		write(t, dir, name+".toml", text)
	}
	r := world{Args: []string{"run", dir}}.start(t, dir)
	for range strings.Count(units, "boot") {
		r.line("@1 ready")
	}
	s := &safe{running: r, dir: dir, address: filepath.Join(dir, "s.sock")}
	for deaths := 0; deaths < 8; {
		unix.Kill(supervisorUnder(t, r.cmd.Process.Pid), unix.SIGKILL)
		deaths, _ = strconv.Atoi(regexp.MustCompile(`again (\d+)`).FindStringSubmatch(r.line("supervisor ended.*again"))[1])
	}
	r.line("safe mode")
	return s
}

// ask has web served n times.
func (s *safe) ask(n int) {
	s.t.Helper()
	for i := range n {
		if _, err := served("unix", s.address); err != nil {
			s.t.Fatalf("request %d in safe mode: %v", i, err)
		}
	}
}

// exits counts the exit records of each unit that came since the safe mode began; the
// running sockd must have ended.
func (s *safe) exits() map[string]int {
	count := map[string]int{}
	for {
		select {
		case l := <-s.lines:
			if m := regexp.MustCompile(`(\w+)@\d+ exited`).FindStringSubmatch(l); m != nil {
				count[m[1]]++
			}
			s.ended = append(s.ended, l)
		default:
			return count
		}
	}
}

// In safe mode services that write and say much go on being served; when sockd is told to leave,
// their output is there to the end, once and in order, and each run's end is on record.
func TestSafeModeCarriesOutput(t *testing.T) {
	t.Parallel()
	s := safeMode(t, talkUnits+deafUnit[1:])
	const requests = 100 // 400 KiB: a pipe holds 64
	s.ask(requests)
	unix.Kill(supervisorUnder(t, s.cmd.Process.Pid), unix.SIGKILL) // it must not take output along
	s.line("supervisor ended.*again")
	s.line("safe mode")
	s.ask(requests)

	calm := statusOf(t, s.dir, "calm").Instances[0].Runs[0].Pid
	unix.Kill(calm, unix.SIGKILL)
	eventually(t, "calm is shown as ended", func() bool {
		in := statusOf(t, s.dir, "calm").Instances[0]
		return in.State == "failed" && len(in.Runs) == 0 && in.LastExit != nil && in.LastExit.Pid == calm && in.LastExit.Signal == "SIGKILL"
	})
	said := regexp.MustCompile(fmt.Sprintf("web@1 .* %d lines", 2*requests))
	var out string
	eventually(t, "what web says of itself is shown", func() bool {
		out, _, _ = verb(t, s.dir, "status")
		return said.MatchString(out)
	})
	if first, _, _ := strings.Cut(out, "\n"); !strings.HasPrefix(first, "safe mode: ") || !strings.Contains(first, "SIGKILL") || !strings.Contains(first, "kill -HUP "+fmt.Sprint(s.cmd.Process.Pid)) ||
		!strings.Contains(first, "sockd upgrade") {
		t.Errorf("status begins with %q", first)
	}
	if want := "calm@1 *failed"; !regexp.MustCompile(want).MatchString(out) {
		t.Errorf("no line like %q in\n%s", want, out)
	}

	s.signal(unix.SIGTERM)
	s.wait()
	const lines = 2*requests + 40 // as many has the probe to say when it leaves
	got := regexp.MustCompile(`(?m)^web@1 +\| line (\d+) (x+)$`).FindAllStringSubmatch(s.stdout.String(), -1)
	for i := range lines {
		if i >= len(got) || got[i][1] != fmt.Sprint(i) || len(got[i][2]) != 4096 {
			t.Fatalf("of %d lines line %d is not in its place; %d are there", lines, i, len(got))
		}
	}
	if n := s.exits(); len(got) != lines || n["web"] != 1 || n["calm"] != 1 || n["deaf"] != 1 {
		t.Errorf("%d lines, want %d; exit records: %v\n%s", len(got), lines, n, strings.Join(s.ended, "\n"))
	}
	if !strings.Contains(strings.Join(s.ended, "\n"), "deaf@1 exited: killed by SIGKILL") {
		t.Errorf("who did not leave was not killed:\n%s", strings.Join(s.ended, "\n"))
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "*.sock")); len(left) > 0 {
		t.Errorf("left over: %q", slices.Concat(left))
	}
	t.Logf("promise N6: %d of %d lines once and in order, from safe mode to its end, one of its supervisors killed", len(got), lines)
	t.Logf("promise N4: 3 of 3 exit records of runs that ended in safe mode")
}

// Where supervisors die in safe mode too, the next one throws output away: services go on
// being served, and how much it was is told when it is over.
func TestSafeModeSpills(t *testing.T) {
	t.Parallel()
	s := safeMode(t, talkUnits)
	for range 3 {
		unix.Kill(supervisorUnder(t, s.cmd.Process.Pid), unix.SIGKILL)
		s.line("safe mode")
	}
	s.line("output is thrown away")
	const requests = 100
	s.ask(requests)
	if out, _, _ := verb(t, s.dir, "status"); !strings.Contains(out, "what services write is thrown away") {
		t.Errorf("status says\n%s", out)
	}
	s.signal(unix.SIGHUP)
	thrown, _ := strconv.Atoi(regexp.MustCompile(`bytes (\d+)`).FindStringSubmatch(s.line("web@1 output thrown away.*bytes "))[1])
	s.ask(1)
	s.signal(unix.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("ended with %d; it said\n%s", code, s.said())
	}
	all, there := 0, 0
	for i := range requests + 1 + 40 {
		all += len(fmt.Sprintln("line", i, strings.Repeat("x", 4096)))
	}
	for _, l := range regexp.MustCompile(`(?m)^web@1 +\| (.*)$`).FindAllStringSubmatch(s.stdout.String(), -1) {
		there += len(l[1]) + 1
	}
	if thrown == 0 || there == 0 || thrown+there != all {
		t.Errorf("%d bytes thrown away and %d there, of %d", thrown, there, all)
	}
	t.Logf("promise N6: of %d bytes %d are there and %d were told to be lost, after supervisors had died in safe mode", all, there, thrown)
}

// An upgrade is a way out of safe mode: another version may not have the fault. Where
// somebody has removed the control socket, it is made again in safe mode too.
func TestSafeModeEndsWithAnUpgrade(t *testing.T) {
	t.Parallel()
	s := safeMode(t, talkUnits)
	s.ask(1)
	if err := os.Remove(filepath.Join(s.dir, "run", "control.sock")); err != nil {
		t.Fatal(err)
	}
	s.line("runtime folder restored")
	if _, errs, code := verb(t, s.dir, "restart", "web"); code != exitFailed || !strings.Contains(errs, "safe mode: ") {
		t.Errorf("restart in safe mode: %d %s", code, errs)
	}
	if out, errs, code := verb(t, s.dir, "upgrade"); code != 0 {
		t.Fatalf("upgrade: %d %s%s\n%s", code, out, errs, s.said())
	}
	if st := statusOf(t, s.dir, "web"); st.Safe != "" || st.State != "ready" || st.Instances[0].Starts != 1 {
		t.Errorf("after the upgrade: %+v", st)
	}
	s.ask(1)
	s.signal(unix.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("ended with %d; it said\n%s", code, s.said())
	}
}
