package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor"
)

// The tests run the command as a process: the test binary is sockd when TEST_SOCKD is set.
func TestMain(m *testing.M) {
	// … and so are the processes that a keeper starts.
	if os.Getenv("TEST_SOCKD") != "" || os.Getenv("SOCKD_KEEPER_FD") != "" {
		os.Unsetenv("TEST_SOCKD")
		main()
		return
	}
	if len(os.TempDir()) > 20 { // a Unix socket's path may have 107 bytes, and tests have long names
		os.Setenv("TMPDIR", "/tmp")
	}
	code := m.Run()
	os.RemoveAll(builtIn)
	os.RemoveAll(variants.dir)
	os.Exit(code)
}

const patience = 60 * time.Second

func command(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TEST_SOCKD=1", "SOCKD_RUNTIME_DIR="+filepath.Join(dir, "run"), "NO_COLOR=1")
	return cmd
}

// sockd runs the command to its end.
func sockd(t *testing.T, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := command(t, dir, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer kill.Stop()
	cmd.Wait()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// A running sockd, and what it said.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	lines  chan string
	ended  chan struct{}
	stdout bytes.Buffer
}

// start runs the command until stop; what it writes to standard error comes as lines.
func start(t *testing.T, dir string, args ...string) *running {
	t.Helper()
	return begin(t, command(t, dir, args...))
}

// begin is start with a command of one's own.
func begin(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	r := &running{t: t, cmd: cmd, lines: make(chan string, 1<<16), ended: make(chan struct{})}
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stdout = &r.stdout
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		sc := bufio.NewScanner(stderr)
		for sc.Scan() {
			r.lines <- sc.Text()
		}
		r.cmd.Wait()
		close(r.ended)
	}()
	t.Cleanup(func() { r.signal(syscall.SIGTERM); r.wait() })
	return r
}

func (r *running) signal(sig syscall.Signal) { r.cmd.Process.Signal(sig) }

func (r *running) wait() int {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patience):
		r.cmd.Process.Kill()
		r.t.Error("sockd did not end in time")
		<-r.ended
	}
	return r.cmd.ProcessState.ExitCode()
}

// line waits for a line of standard error that fits.
func (r *running) line(pattern string) string {
	r.t.Helper()
	re := regexp.MustCompile(pattern)
	var seen []string
	fits := func(l string) bool {
		seen = append(seen, l)
		return re.MatchString(l)
	}
	for {
		select {
		case l := <-r.lines:
			if fits(l) {
				return l
			}
		case <-r.ended: // all that it said is there, and may not have been looked at
			for len(r.lines) > 0 {
				if l := <-r.lines; fits(l) {
					return l
				}
			}
			r.t.Fatalf("sockd ended with %d; no line like %q among\n%s", r.cmd.ProcessState.ExitCode(), pattern, strings.Join(seen, "\n"))
		case <-time.After(patience):
			r.t.Fatalf("no line like %q among\n%s", pattern, strings.Join(seen, "\n"))
		}
	}
}

// freePort is a port that nobody has at the moment, and that the kernel gives to nobody
// who asks for any.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		if ln, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10_000+rand.IntN(20_000))); err == nil {
			defer ln.Close()
			return ln.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// serveAdHoc runs a program with `sockd run -l` and wants that answer from it.
func serveAdHoc(t *testing.T, program, want string, say ...string) {
	t.Helper()
	dir := t.TempDir()
	address := freePort(t)
	r := start(t, dir, "run", "-l", "echo="+address, "--", program)
	r.line("idle")
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	for _, s := range say {
		io.WriteString(c, s)
	}
	c.(*net.TCPConn).CloseWrite()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != want {
		t.Errorf("%s answers %q, %v; want %q", filepath.Base(program), got, err, want)
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMisuse(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "bad.toml", "[service]\nexec = \"x\"\nstrat = \"boot\"\n")
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"frobnicate", exitMisuse, `unknown command "frobnicate"`},
		{"run --nope", exitMisuse, "unknown flag: --nope"},
		{"run -n 3 bad.toml", exitMisuse, "--instances goes with -l"},
		{"run -l :1", exitMisuse, "-l needs a command after --"},
		{"run -l nonsense://x -- true", exitMisuse, "nonsense"},
		{"run --log-format xml bad.toml", exitMisuse, "neither text nor json"},
		{"run", exitMisuse, "no units"},
		{"run bad.toml", exitFailed, `bad.toml:3:1: service.strat: unknown key`},
		{"run missing.toml", exitFailed, "missing.toml"},
		{"check bad.toml", exitFailed, `bad.toml:3:1: service.strat: unknown key`},
		{"status", exitNotRunning, "not running"},
		{"restart web", exitNotRunning, "not running"},
		{"restart", exitMisuse, "restart takes UNIT…, not 0 arguments"},
		{"statsu", exitMisuse, "did you mean `status`?"},
		{"-- frobnicate", exitMisuse, `unknown command "frobnicate"`},
		{"frobnicate --help", exitMisuse, `unknown command "frobnicate"`},
		{"help frobnicate", exitMisuse, `unknown command "frobnicate"`},
		{"help status x", exitMisuse, `unknown command "status x"`},
		{"run -l :1 -n many -- true", exitMisuse, `-n, --instances: "many" is no whole number`},
		{"restart web --timeout 5", exitMisuse, `--timeout: "5" is no duration such as 30s`},
		{"restart web --no-wait=maybe", exitMisuse, `--no-wait: "maybe" is neither true nor false`},
		{"scale web", exitMisuse, "scale takes UNIT N, not 1 argument\n"},
		{"status -o xml", exitMisuse, "neither text nor json"},
		{"schema x", exitMisuse, "schema takes no argument"},
		{"restart web --canary abc", exitMisuse, "neither a number of instances nor a share"},
		{"restart web --canary 0", exitMisuse, "neither a number of instances nor a share"},
		{"restart web --timeout 0s", exitMisuse, "--timeout: 0s is no time to wait"},
		{"scale web 2 --timeout -1s", exitMisuse, "--timeout: -1s is no time to wait"},
		{"upgrade --timeout 0s", exitMisuse, "--timeout: 0s is no time to wait"},
		{"completion", exitMisuse, "completion takes SHELL, not 0 arguments"},
		{"completion tcsh", exitMisuse, `no completion for "tcsh"; there is one for bash, zsh, fish, powershell`},
		{"version -o xml", exitMisuse, "neither text nor json"},
		{"check -o xml", exitMisuse, "neither text nor json"},
		{"check empty", exitFailed, "no units in empty"},
		{"check bad.toml -o json", exitFailed, ""},
		{"run -l :1 -n 0 -- true", exitMisuse, "sockd: service.instances: "},
	} {
		_, stderr, code := sockd(t, dir, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stderr, c.says) {
			t.Errorf("sockd %s: code %d, want %d; says %q, want %q", c.args, code, c.code, stderr, c.says)
		}
	}
}

func TestRunStatusStopOfAFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "cat.toml", `
[service]
exec = ["sh", "-c", "echo up; exec sleep 1000"]
start = "boot"
[socket.s]
listen = "unix://./s.sock"
`)
	r := start(t, dir, "run", "cat.toml")
	r.line("cat@1 ready")
	stdout, _, code := sockd(t, dir, "status")
	if code != 0 || !regexp.MustCompile(`cat@1 +ready`).MatchString(stdout) || !strings.Contains(stdout, "s.sock") {
		t.Errorf("status: %d\n%s", code, stdout)
	}
	stdout, _, code = sockd(t, dir, "status", "-o", "json", "cat")
	var all []supervisor.UnitStatus
	if err := json.Unmarshal([]byte(stdout), &all); code != 0 || err != nil || len(all) != 1 || all[0].Instances[0].State != "ready" {
		t.Errorf("status: %d, %v\n%s", code, err, stdout)
	}
	if _, stderr, code := sockd(t, dir, "status", "dog"); code != exitNoUnit {
		t.Errorf("status of an unknown unit: %d, %s", code, stderr)
	}
	if _, stderr, code := sockd(t, dir, "stop", "dog"); code != exitNoUnit || !strings.Contains(stderr, `"dog"`) {
		t.Errorf("stop of an unknown unit: %d, %s", code, stderr)
	}
	if stdout, stderr, code := sockd(t, dir, "restart", "cat"); code != 0 || stdout != "cat: restarted\n" {
		t.Errorf("restart: %d %q %q", code, stdout, stderr)
	}
	if stdout, stderr, code := sockd(t, dir, "restart", "dog", "cat"); code != exitNoUnit || stdout != "cat: restarted\n" {
		t.Errorf("restart of an unknown one and another: %d %q %q", code, stdout, stderr)
	}
	if stdout, stderr, code := sockd(t, dir, "scale", "cat", "2", "-o", "json"); code != 0 || !strings.Contains(stdout, `"outcome": "done"`) {
		t.Errorf("scale: %d %q %q", code, stdout, stderr)
	}
	if stdout, stderr, code := sockd(t, dir, "scale", "cat", "1"); code != 0 || stdout != "cat: scaled\n" {
		t.Errorf("scale: %d %q %q", code, stdout, stderr)
	}
	if stdout, stderr, code := sockd(t, dir, "stop", "cat"); code != 0 || stdout != "cat: stopped\n" {
		t.Errorf("stop: %d %q %q", code, stdout, stderr)
	}
	if stdout, stderr, code := sockd(t, dir, "start", "cat"); code != 0 || stdout != "cat: started\n" {
		t.Errorf("start: %d %q %q", code, stdout, stderr)
	}
	if _, stderr, code := sockd(t, dir, "run", "cat.toml"); code != exitFailed || !strings.Contains(stderr, fmt.Sprintf("sockd with pid %d", r.cmd.Process.Pid)) {
		t.Errorf("a second run: %d %q", code, stderr)
	}
	write(t, dir, "cat.toml", "[service]\nexec = [\"sh\", \"-c\", \"exit 9\"]\nready = \"notify\"\nstart = \"boot\"\n[socket.s]\nlisten = \"unix://./s.sock\"\n")
	if _, stderr, code := sockd(t, dir, "reload"); code != 0 {
		t.Errorf("reload: %d %q", code, stderr)
	}
	r.line("replacement failed")
	if _, stderr, code := sockd(t, dir, "restart", "cat"); code != exitRolledBack || !strings.Contains(stderr, "exit status 9") {
		t.Errorf("restart of a broken one: %d %q", code, stderr)
	}
	write(t, dir, "cat.toml", "[service")
	if _, stderr, code := sockd(t, dir, "reload"); code != exitFailed || !strings.Contains(stderr, "cat.toml:1:") {
		t.Errorf("reload of a bad file: %d %q", code, stderr)
	}
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("left over: %v", left)
	}
	if !strings.Contains(r.stdout.String(), "cat@1 | up\n") {
		t.Errorf("output: %q", r.stdout.String())
	}
}

func TestEssentialExitCode(t *testing.T) {
	for code, script := range map[int]string{0: "exit 0", 42: "exit 42", 128 + 9: "kill -9 $$"} {
		dir := t.TempDir()
		write(t, dir, "main.toml", fmt.Sprintf("[service]\nexec = [\"sh\", \"-c\", %q]\nrestart = \"no\"\nessential = true\n", script))
		if _, stderr, got := sockd(t, dir, "run", "main.toml"); got != code {
			t.Errorf("%s: sockd ended with %d\n%s", script, got, stderr)
		}
	}
}

func TestEmitPrintsAUnitThatChecks(t *testing.T) {
	dir := t.TempDir()
	stdout, stderr, code := sockd(t, dir, "run", "-l", "http=:8080", "-l", "http=unix://./s.sock", "-l", "9090", "--now", "--emit", "--", "./web", "-v", "it's \"quoted\"")
	if code != 0 {
		t.Fatalf("%d %s", code, stderr)
	}
	write(t, dir, "web.toml", stdout)
	if out, stderr, code := sockd(t, dir, "check", "web.toml"); code != 0 || out != "1 unit, 2 sockets: no problems\n" {
		t.Errorf("%d %q %q of\n%s", code, out, stderr, stdout)
	}
}

// What a unit cannot hold is refused, and not changed into something else.
func TestRunRefusesWhatIsNotText(t *testing.T) {
	for _, args := range [][]string{{"-l", ":0", "--", "./web", "\xff.log"}, {"-l", "./\xff.sock", "--", "./web"}} {
		stdout, stderr, code := sockd(t, t.TempDir(), append([]string{"run", "--emit"}, args...)...)
		if code != exitMisuse || stdout != "" || !strings.Contains(stderr, `\xff`) {
			t.Errorf("%q: %d %q %q", args, code, stdout, stderr)
		}
	}
}

func TestSecondInterruptKills(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "deaf.toml", `
[service]
exec = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1000; done"]
start = "boot"
stop_timeout = "0s"
`)
	r := start(t, dir, "run", "--log-format", "json", "deaf.toml")
	r.line(`"ready"`)
	r.signal(syscall.SIGINT)
	r.line(`draining`)
	r.signal(syscall.SIGINT)
	if code := r.wait(); code != 0 {
		t.Errorf("ended with %d", code)
	}
}

// A crash is no reload: nothing that the first start looked at need be there.
func TestSupervisorReturnsWhenItsFilesHaveGone(t *testing.T) {
	dir := t.TempDir()
	units := filepath.Join(dir, "sockd.d")
	if err := os.Mkdir(units, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, units, "cat.toml", "[service]\nexec = [\"sleep\", \"1000\"]\nstart = \"boot\"\ndirectory = \"/\"\n")
	r := start(t, dir, "run")
	r.line("cat@1 ready")
	if err := os.RemoveAll(units); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(supervisorUnder(t, r.cmd.Process.Pid), syscall.SIGKILL)
	r.line("supervisor ended")
	stdout, stderr, code := sockd(t, dir, "status")
	if code != 0 || !regexp.MustCompile(`cat@1 +ready`).MatchString(stdout) {
		t.Errorf("status: %d %q %q", code, stdout, stderr)
	}
}

// Any number of commands without a file run side by side below one folder.
func TestAdHocRunsHaveFoldersOfTheirOwn(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		r := start(t, dir, "run", "-l", freePort(t), "--", "cat")
		r.line("cat@1 idle")
	}
	stdout, stderr, code := sockd(t, dir, "status")
	if code != 0 || strings.Count(stdout, "cat@1") != 2 {
		t.Errorf("status: %d %q %q", code, stdout, stderr)
	}
}
