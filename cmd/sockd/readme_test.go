package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sockd/sockd/units"
)

// The README's first command serves, its unit is one, and CI runs its test command.
func TestReadme(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := units.Parse(filepath.Join(root, "examples", "hello", "hello.toml"), []byte(blocks(t, "README.md", "toml")[0])); err != nil {
		t.Error(err)
	}
	sh := blocks(t, "README.md", "sh")
	run, curl, tests := strings.TrimSpace(sh[0]), strings.Fields(sh[1]), strings.TrimSpace(sh[2])
	ci, err := os.ReadFile(filepath.Join(root, ".ci", "run"))
	if err != nil || !strings.Contains(string(ci), tests) {
		t.Errorf(".ci/run does not run %q: %v", tests, err)
	}
	if ln, err := net.Listen("tcp", "127.0.0.1:8080"); err != nil {
		t.Skipf("the README's port is taken on this machine: %v", err)
	} else {
		ln.Close()
	}
	cmd := exec.Command("sh", "-c", run)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "SOCKD_RUNTIME_DIR="+filepath.Join(t.TempDir(), "run"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	late := time.After(5 * time.Minute) // it builds first
	for {
		res, err := http.Get(curl[len(curl)-1])
		if err == nil {
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if !strings.HasPrefix(string(body), "hello from process ") {
				t.Errorf("answer: %q", body)
			}
			break
		}
		select {
		case err := <-ended:
			if strings.Contains(out.String(), "address already in use") {
				t.Skipf("the README's port was taken meanwhile: %s", out.String())
			}
			t.Fatalf("%s: %v\n%s", run, err, out.String())
		case <-late:
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			t.Fatalf("no answer: %v", err)
		case <-time.After(20 * time.Millisecond): // a port that nobody has opened yet tells nobody
		}
	}
	syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // the shell, and sockd in it
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("sockd did not end in time")
	}
	waitGone(t, "127.0.0.1:8080")
}

// waitGone waits until nobody listens: the shell may end before sockd.
func waitGone(t *testing.T, address string) {
	t.Helper()
	late := time.Now().Add(patience)
	for {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		c.Close()
		if time.Now().After(late) {
			t.Fatalf("%s is still served", address)
		}
		<-time.After(10 * time.Millisecond)
	}
}
