package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor"
	"golang.org/x/sys/unix"
)

// programs builds sockd and the probe once, static, and returns their folder.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sockd-programs-")
	if err != nil {
		return "", err
	}
	builtIn = dir
	os.Chmod(dir, 0o755)
	build := exec.Command("go", "build", "-o", dir+"/", ".", "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, nil
})

var builtIn string // what programs made; "" if no test asked for it

// built is the folder of sockd and the probe.
func built(t testing.TB) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// shortDir is a folder that everybody may enter, with a short name: a control
// socket's path may have 107 bytes.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sockd-w-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// unprivileged says why namespaces cannot be made here, once it has been tried.
var unprivileged = sync.OnceValue(func() error {
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.SysProcAttr = namespaces(unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET)
	return cmd.Run()
})

// namespaces asks for them; who is not root gets a user namespace as well, in which
// he is.
func namespaces(flags uintptr) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: flags}
	if flags != 0 && os.Getuid() != 0 {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

func needNamespaces(t testing.TB) {
	t.Helper()
	if err := unprivileged(); err != nil {
		t.Skipf("no namespaces: %v", err)
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

// start starts sockd in the world. dir is where its units and its runtime folder are.
func (w world) start(t testing.TB, dir string) *running {
	t.Helper()
	folder := built(t)
	if w.Env == nil {
		w.Env = []string{"PATH=" + os.Getenv("PATH"), "NO_COLOR=1", "SOCKD_RUNTIME_DIR=" + filepath.Join(dir, "run")}
	}
	for k, v := range w.Vars {
		w.Env = append(w.Env, k+"="+v)
	}
	for _, v := range append([]string{folder}, w.Env...) {
		w.Raw = append(w.Raw, []byte(v))
	}
	w.Env = nil
	text, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Dir = dir
	cmd.SysProcAttr = namespaces(w.Namespaces)
	file := filepath.Join(t.TempDir(), "world")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd.Env = []string{worldVariable + "=" + file}
	r := &running{cmd: cmd, lines: make(chan string, 1<<16), ended: make(chan struct{})}
	r.t, _ = t.(*testing.T)
	stderr, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr, cmd.Stdout = write, w.stdout
	if w.stderr != nil {
		cmd.Stderr = w.stderr
	}
	if w.stdout == nil {
		cmd.Stdout = &r.stdout
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	go func() {
		sc := bufio.NewScanner(stderr)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			select {
			case r.lines <- sc.Text():
			default:
			}
		}
		stderr.Close()
		cmd.Wait()
		close(r.ended)
	}()
	t.Cleanup(func() { r.signal(unix.SIGTERM); r.wait() })
	return r
}

// served connects and reads the answer of `probe serve`.
func served(network, address string) (string, error) {
	c, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// statusOf asks a running sockd for a unit; its runtime folder is dir/run.
func statusOf(t testing.TB, dir, name string) supervisor.UnitStatus {
	t.Helper()
	st, err := supervisor.NewClient(filepath.Join(dir, "run")).Unit(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// eventually looks again and again, where the kernel tells nobody.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// socketTransport speaks HTTP over a Unix socket.
func socketTransport(path string) *http.Transport {
	return &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
}
