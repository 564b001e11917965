package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
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

// A verb finds its unit on whichever folder it runs, as long as only one has it.
func TestVerbFindsTheUnitOfARunWithoutAFile(t *testing.T) {
	dir := shortDir(t)
	first := start(t, dir, "run", "-l", freePort(t), "--", "cat")
	first.line("cat@1 idle")
	folder := filepath.Join(dir, "run", fmt.Sprintf("run-%d", first.cmd.Process.Pid))
	for _, c := range []struct{ args, says string }{
		{"stop cat", "cat: stopped\n"},
		{"restart cat", "cat: restarted\n"},
		{"scale cat 2", "cat: scaled\n"},
		{"reload", "reloaded\n"},
	} {
		if stdout, stderr, code := sockd(t, dir, strings.Fields(c.args)...); code != 0 || stdout != c.says {
			t.Errorf("%s: %d %q %q", c.args, code, stdout, stderr)
		}
	}
	if stdout, _, _ := sockd(t, dir, "status"); !strings.Contains(stdout, folder+":\n") {
		t.Errorf("status does not say where:\n%s", stdout)
	}
	stdout, _, _ := sockd(t, dir, "status", "-o", "json")
	var all []supervisor.UnitStatus
	if err := json.Unmarshal([]byte(stdout), &all); err != nil || len(all) != 1 || all[0].RuntimeDir != folder {
		t.Errorf("status: %v\n%s", err, stdout)
	}
	if _, stderr, code := sockd(t, dir, "restart", "dog"); code != exitNoUnit || !strings.Contains(stderr, `"dog"`) {
		t.Errorf("an unknown unit: %d %q", code, stderr)
	}

	if stdout, _, _ := sockd(t, dir, "__complete", "restart", ""); !strings.HasPrefix(stdout, "cat\n") {
		t.Errorf("completion offers %q", stdout)
	}
	if stdout, _, _ := sockd(t, dir, "__complete", "restart", "-o", ""); !strings.HasPrefix(stdout, "text\njson\n") {
		t.Errorf("completion of -o offers %q", stdout)
	}

	second := start(t, dir, "run", "-l", freePort(t), "--", "cat")
	second.line("cat@1 idle")
	for _, args := range []string{"restart cat", "reload"} {
		_, stderr, code := sockd(t, dir, strings.Fields(args)...)
		if code != exitMisuse || strings.Count(stderr, filepath.Join(dir, "run", "run-")) != 2 || !strings.Contains(stderr, "--runtime-dir") {
			t.Errorf("%s with two of them: %d %q", args, code, stderr)
		}
	}
	if stdout, stderr, code := sockd(t, dir, "restart", "cat", "--runtime-dir", folder); code != 0 {
		t.Errorf("with the folder: %d %q %q", code, stdout, stderr)
	}

	write(t, dir, "cat.toml", "[service]\nexec = \"cat\"\n[socket.s]\nlisten = \"unix://./cat.sock\"\n")
	usual := start(t, dir, "run", "cat.toml")
	usual.line("cat@1 idle")
	if stdout, stderr, code := sockd(t, dir, "stop", "cat"); code != 0 {
		t.Errorf("the usual folder comes first: %d %q %q", code, stdout, stderr)
	}
	usual.line("cat@1 stopped")
}

// A verb under way is answered by the next supervisor.
func TestVerbGoesOnWhenTheSupervisorIsKilled(t *testing.T) {
	dir := shortDir(t)
	gate := filepath.Join(dir, "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(gate, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	write(t, dir, "slow.toml", fmt.Sprintf("[service]\nexec = [\"sh\", \"-c\", \"read x < gate; test $x = yes && exec %s serve; exit 9\"]\nready = \"notify\"\nstart = \"boot\"\nstart_timeout = \"0s\"\n[socket.s]\nlisten = \"unix://./s.sock\"\n", filepath.Join(built(t), "probe")))
	r := start(t, dir, "run", "slow.toml")
	r.line("slow@1 starting")
	pipe.WriteString("yes\n")
	r.line("slow@1 .*ready")
	for word, want := range map[string]string{
		"yes": `^0 slow: restarted\nsockd: slow: no proof: `,
		"no":  `^6 sockd: slow: no proof: .*\nsockd: slow: not restarted \(rolled back\): slow@1: .*exit status 9`,
	} {
		answer := make(chan string, 1)
		go func() {
			stdout, stderr, code := sockd(t, dir, "restart", "slow", "--prove")
			answer <- fmt.Sprintf("%d %s%s", code, stdout, stderr)
		}()
		r.line("replacement begins")
		syscall.Kill(supervisorUnder(t, r.cmd.Process.Pid), syscall.SIGKILL)
		r.line("supervisor ended")
		pipe.WriteString(word + "\n")
		if got := <-answer; !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
}

// asNobody runs a program as the user nobody.
func asNobody(t *testing.T, dir, program string, args ...string) (output string, code int) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = dir, []string{"SOCKD_RUNTIME_DIR=" + filepath.Join(dir, "run"), "NO_COLOR=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Skip("cannot be somebody else:", err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// Who may not ask is told whom to ask, and not that nobody is there.
func TestControlSocketOfSomebodyElse(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	dir := shortDir(t)
	write(t, dir, "cat.toml", "[service]\nexec = \"cat\"\n[socket.s]\nlisten = \"unix://./cat.sock\"\n")
	start(t, dir, "run", "cat.toml").line("cat@1 idle")
	os.Chmod(dir, 0o755)
	program := filepath.Join(dir, "sockd")
	text, err := os.ReadFile(filepath.Join(built(t), "sockd"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, code := asNobody(t, dir, program, "doctor"); code != 0 || !strings.Contains(out, "another user's") {
		t.Errorf("doctor: %d %q", code, out)
	}
	for _, args := range []string{"status", "restart cat", "reload", "upgrade"} {
		out, code := asNobody(t, dir, program, strings.Fields(args)...)
		if code != exitFailed || !strings.Contains(out, "permission denied") || !strings.Contains(out, "belongs to root (uid 0), and you are nobody (uid 65534)") || !strings.Contains(out, "sudo") {
			t.Errorf("%s: %d %q", args, code, out)
		}
	}
}

// One that hangs, as in a container that was paused, does not keep others from saying how
// they are.
func TestStatusIsNotHeldUp(t *testing.T) {
	defer func(d time.Duration) { findPatience = d }(findPatience)
	findPatience = 10 * time.Millisecond
	dir := shortDir(t)
	t.Setenv("SOCKD_RUNTIME_DIR", dir)
	if err := os.Mkdir(filepath.Join(dir, "run-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	var sockets []net.Listener
	for _, folder := range []string{"", "run-1"} {
		l, err := net.Listen("unix", filepath.Join(dir, folder, supervisor.ControlSocket))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		sockets = append(sockets, l)
	}
	go http.Serve(sockets[0], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`[{"name": "web"}]`)) }))
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	cmd := newStatus()
	cmd.SetContext(ctx)
	all, err := statuses(cmd, nil)
	if err != nil || len(all) != 1 || all[0].Name != "web" {
		t.Errorf("%+v, %v", all, err)
	}
}
