package main

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The whole way: a program that uses activation.Serve and knows of no gate, in two
// processes, with a new version that never answers and a supervisor that is killed
// while it waits for it.
func TestGateOfAServedProgram(t *testing.T) {
	dir := t.TempDir()
	hello := filepath.Join(dir, "hello")
	if out, err := exec.Command("go", "build", "-o", hello, "../../examples/hello").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	address := freePort(t)
	unit := func(program string, limit time.Duration) string {
		return fmt.Sprintf(`
[service]
exec = %s
instances = 2
start = "boot"
ready = { http = "/healthz", timeout = "100ms", interval = "10ms" }
start_timeout = "%v"
stop_timeout = "5s"
[socket.http]
listen = "tcp://%s"
per_instance = true
`, program, limit, address)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	served := map[string]int{}
	get := func() {
		t.Helper()
		resp, err := client.Get("http://" + address)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		served[strings.TrimSpace(string(body))]++
	}
	write(t, dir, "web.toml", unit(`"./hello"`, 0))
	r := start(t, dir, "run", "web.toml")
	r.line("web@1.* ready|ready.*web")
	if _, stderr, code := sockd(t, dir, "start", "web"); code != 0 {
		t.Fatalf("start: %d %q", code, stderr)
	}
	if _, stderr, code := sockd(t, dir, "restart", "web"); code != 0 {
		t.Fatalf("restart: %d %q", code, stderr)
	}
	clear(served)
	for range 50 {
		get()
	}
	reload := func(limit time.Duration) {
		t.Helper()
		write(t, dir, "web.toml", unit(`["sleep", "1000"]`, limit))
		if _, stderr, code := sockd(t, dir, "reload"); code != 0 {
			t.Fatalf("reload: %d %q", code, stderr)
		}
	}
	limit := time.Second
	reload(limit)
	syscall.Kill(supervisorUnder(t, r.cmd.Process.Pid), syscall.SIGKILL)
	get()
	r.line("replacement failed")
	because := func() string {
		return fmt.Sprintf("start timeout %v: ready: GET /healthz: no answer within 100ms", limit)
	}
	_, stderr, code := sockd(t, dir, "restart", "web")
	for code == exitRolledBack && !strings.Contains(stderr, because()) && limit < patience/4 { // a slow machine has not asked yet
		limit *= 2
		reload(limit)
		_, stderr, code = sockd(t, dir, "restart", "web")
	}
	if code != exitRolledBack || !strings.Contains(stderr, because()) {
		t.Errorf("restart: %d %q", code, stderr)
	}
	for range 50 {
		get()
	}
	if len(served) != 2 { // the processes of before, and nobody else
		t.Errorf("served by %v", served)
	}
	t.Logf("promise N2: a version whose gate fails, and a supervisor killed meanwhile: 101 requests, 0 failed, exit code %d", code)
}
