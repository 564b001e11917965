package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor"
)

const twoSiblings = `
[service]
exec = ["sleep", "1000"]
start = "boot"
instances = 2
[socket.http]
listen = "tcp://127.0.0.1:0"
per_instance = true
[socket.ctl]
listen = "tcp://127.0.0.1:0"
`

// Status says how siblings are steered, each one's weight, and what is missing.
func TestStatusSaysHowSiblingsAreSteered(t *testing.T) {
	for level, steering := range map[string]string{
		"classic-bpf": `classic-bpf: .+; SOCKD_STEERING asks for no better`,
		"hash":        `hash: an instance that is down gets its share .+; SOCKD_STEERING asks for no better`,
		"off":         "",
	} {
		t.Run(level, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("SOCKD_STEERING", level)
			write(t, dir, "web.toml", twoSiblings)
			r := start(t, dir, "run", "web.toml")
			r.line(" ready")
			r.line(" ready")
			stdout, _, _ := sockd(t, dir, "status")
			weight := "1"
			if steering == "" {
				weight = "-"
			}
			lines := []string{`SOCKET +NAME +ADDRESS +QUEUED +DROPS +WEIGHT`, `web@2 +http +tcp://127\.0\.0\.1:\d+ +0 of \d+ +0 +` + weight,
				`web +ctl +tcp://127\.0\.0\.1:\d+ +0 of \d+ +0 +-`}
			if steering != "" {
				lines = append(lines, `STEERING +NAME *`, `web +http +`+steering)
			}
			for _, want := range lines {
				if !regexp.MustCompile(`(?m)^` + want + `$`).MatchString(stdout) {
					t.Errorf("no line like %s in\n%s", want, stdout)
				}
			}
			if n := len(regexp.MustCompile(`(?m)^web +http`).FindAllString(stdout, -1)); steering == "" && n != 0 || steering != "" && n != 1 {
				t.Errorf("%d lines about the group's steering in\n%s", n, stdout)
			}
		})
	}
}

// An ordinary user sees what is missing and how to get it.
func TestStatusOfAnOrdinaryUser(t *testing.T) {
	needRoot(t)
	dir := shortDir(t)
	run := filepath.Join(dir, "run")
	write(t, dir, "web.toml", twoSiblings)
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(run, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	r := world{UID: nobody, Args: []string{"run", filepath.Join(dir, "web.toml")}}.start(t, dir)
	r.line(" ready")
	r.line(" ready")
	stdout, stderr, _ := sockd(t, dir, "status", "--runtime-dir", run)
	if want := `(?m)^web +http +classic-bpf: .+; CAP_BPF would mend that: see .sockd doctor.$`; !regexp.MustCompile(want).MatchString(stdout) {
		t.Errorf("no line like %s in\n%s%s", want, stdout, stderr)
	}
}

// Status says what an operator has to know of an instance that serves: that it is a canary,
// that the unit is paused, that its replacement came to nothing.
func TestStatusSaysWhatIsSpecial(t *testing.T) {
	dir := t.TempDir()
	unit := "[service]\nexec = [\"sh\", \"-c\", \"%s\"]\nstart = \"boot\"\ninstances = 2\n"
	write(t, dir, "web.toml", fmt.Sprintf(unit, "exec sleep 1000"))
	r := start(t, dir, "run", "web.toml")
	r.line(" ready")
	r.line(" ready")
	do := func(want int, args ...string) {
		t.Helper()
		if stdout, stderr, code := sockd(t, dir, args...); code != want {
			t.Fatalf("%v: code %d, %s%s", args, code, stdout, stderr)
		}
	}
	says := func(lines ...string) {
		t.Helper()
		stdout, _, _ := sockd(t, dir, "status")
		for _, want := range lines {
			if !regexp.MustCompile(`(?m)^` + want + ` *$`).MatchString(stdout) {
				t.Errorf("no line like %s in\n%s", want, stdout)
			}
		}
	}
	do(0, "restart", "web", "--canary", "1")
	says(`web@2 +ready +\d+s +\d+ +1`, "web@3 +ready +\\d+s +\\d+ +1 +canary: `sockd promote web` or `sockd abort web`")
	do(0, "abort", "web")
	do(0, "pause", "web")
	says("web@1 +ready +.*1 +paused: nobody is started until `sockd resume web`")
	do(0, "resume", "web")
	says(`web@1 +ready +\d+s +\d+ +1`)
	write(t, dir, "web.toml", strings.Replace(fmt.Sprintf(unit, "exit 9"), "start =", "ready = \"notify\"\nstart =", 1))
	do(0, "reload")
	r.line("replacement failed")
	do(exitRolledBack, "restart", "web")
	says(`web@1 +ready +.*replacement failed: exit status 9`, `web@2 +ready +.*replacement cancelled: instance 1: exit status 9`)
}

// What stands in a path or an error does not steer the terminal, nor break the table.
func TestStatusDoesNotSteerTheTerminal(t *testing.T) {
	const odd = "a\x1b[31m\tb\nc"
	var b strings.Builder
	err := printUnits(&b, []supervisor.UnitStatus{{
		Name:      "web",
		Instances: []supervisor.InstanceStatus{{Instance: 1, State: "backoff", Because: odd}},
		Sockets:   []supervisor.SocketStatus{{Unit: "web", Name: "s", Network: "unix", Address: "/" + odd}},
	}}, time.Now())
	if err != nil || strings.ContainsAny(b.String(), "\x1b\t") || strings.Count(b.String(), "\n") != 5 {
		t.Errorf("%v %q", err, b.String())
	}
}
