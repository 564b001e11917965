package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// image lays out what the Containerfile's image has, and the probe as its service.
func image(t *testing.T) (root string) {
	t.Helper()
	root = shortDir(t)
	for _, dir := range []string{"proc", "dev", "tmp", "run", "etc/sockd", "bin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, root, "dev/null", "") // the engine puts it there
	for from, to := range map[string]string{"sockd": "sockd", "probe": "bin/probe"} {
		b, err := os.ReadFile(filepath.Join(built(t), from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, to), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, root, "etc/sockd/web.toml", "[service]\nexec = [\"/bin/probe\", \"serve\"]\nready = \"notify\"\ninstances = 2\n[socket.http]\nlisten = \"tcp://0.0.0.0:80\"\n")
	return root
}

// containerVariables are those of the Containerfile.
var containerVariables = []string{"PATH=/bin", "SOCKD_RUNTIME_DIR=/run/sockd", "NO_COLOR=1"}

// The tree of an image, as process 1 in namespaces of its own, with nothing of the
// host's: no C library, no shell, no /run, no cgroups, no users.
func TestContainer(t *testing.T) {
	needWayInside(t)
	for _, c := range []struct {
		name     string
		readOnly bool
		args     []string
	}{
		{"writable", false, []string{"run", "/etc/sockd"}},
		{"read-only", true, []string{"run", "/etc/sockd"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := image(t)
			w := world{Namespaces: asPid1 | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS, Root: root, ReadOnly: c.readOnly, Tmpfs: []string{"run"}, Env: containerVariables, Args: c.args}
			r := w.start(t, root)
			r.line("web@1 idle|web@2 idle")
			inside(t, r, func() {
				for range 3 {
					if _, err := served("tcp", "127.0.0.1:80"); err != nil {
						t.Error(err)
					}
				}
			})
			r.line("web@. ready")
			r.line("web@. ready")
			// The probes of docs/containers.md: the command inside, and HTTP on the control socket.
			if out, err := r.exec(t, "/sockd", "status"); err != nil || !strings.Contains(out, "ready") {
				t.Errorf("status inside: %v\n%s", err, out)
			}
			control := http.Client{Transport: socketTransport(fmt.Sprintf("/proc/%d/root/run/sockd/control.sock", r.cmd.Process.Pid)), Timeout: patience}
			for _, path := range []string{"/healthz", "/readyz"} {
				if res, err := control.Get("http://sockd" + path); err != nil || res.StatusCode != http.StatusOK {
					t.Errorf("%s: %v, %v", path, res, err)
				}
			}
			// preStop, and the end of the grace period's first half.
			if out, err := r.exec(t, "/sockd", "stop", "web"); err != nil {
				t.Errorf("stop inside: %v\n%s", err, out)
			}
			r.signal(unix.SIGTERM)
			if code := r.wait(); code != 0 {
				t.Errorf("ended with %d; it said\n%s", code, r.said())
			}
		})
	}
}

// Where nobody can write anywhere, there is no control socket; services are served all the
// same, by whichever supervisor.
func TestContainerNowhereToWrite(t *testing.T) {
	needWayInside(t)
	root := image(t)
	w := world{Namespaces: asPid1, Root: root, ReadOnly: true, Env: containerVariables, Args: []string{"run", "/etc/sockd"}}
	r := w.start(t, root)
	r.line("no control socket.*read-only")
	r.line("web@. idle") // its sockets are open
	inside(t, r, func() {
		for range 2 {
			if _, err := served("tcp", "127.0.0.1:80"); err != nil {
				t.Error(err)
			}
			unix.Kill(supervisorUnder(t, r.cmd.Process.Pid), unix.SIGKILL)
			r.line("supervisor ended")
		}
		if _, err := served("tcp", "127.0.0.1:80"); err != nil {
			t.Error(err)
		}
	})
	r.signal(unix.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("ended with %d; it said\n%s", code, r.said())
	}
}

// needWayInside skips where sockd's namespaces cannot be entered: an ordinary user may
// make them, and not follow.
func needWayInside(t *testing.T) {
	t.Helper()
	needNamespaces(t)
	needRoot(t)
}

// inside calls f in the network namespace of a sockd.
func inside(t *testing.T, r *running, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with us
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", r.cmd.Process.Pid))
		if err != nil {
			t.Error(err)
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

// exec runs a program of the container in it, as an engine's exec does.
func (r *running) exec(t *testing.T, argv ...string) (out string, err error) {
	t.Helper()
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		t.Skip("no nsenter to go inside with")
	}
	args := []string{"-t", fmt.Sprint(r.cmd.Process.Pid), "-m", "-p", "-n", "-r", "-w", "--"}
	cmd := exec.Command(nsenter, append(args, argv...)...)
	cmd.Env = containerVariables
	b, err := cmd.CombinedOutput()
	return string(b), err
}

// Who is not root cannot have port 80, and is told so; the kernel's setting for the
// namespace, which engines switch on, makes it possible.
func TestContainerUnprivilegedPort(t *testing.T) {
	needWayInside(t)
	root := image(t)
	os.Chmod(filepath.Join(root, "run"), 0o777)
	w := world{Namespaces: asPid1, Root: root, UID: 65534, Env: containerVariables, Args: []string{"run", "--runtime-dir", "/run/s", "/etc/sockd"}}
	r := w.start(t, root)
	if code := r.wait(); code != exitFailed {
		t.Errorf("ended with %d", code)
	}
	if said := r.said(); !strings.Contains(said, "permission denied") || !strings.Contains(said, ":80") {
		t.Errorf("said %q", said)
	}
	w.LowPorts = true
	r = w.start(t, root)
	r.line("web@1 idle")
	inside(t, r, func() {
		if _, err := served("tcp", "127.0.0.1:80"); err != nil {
			t.Error(err)
		}
	})
	if _, err := net.Dial("tcp", "127.0.0.1:80"); err == nil {
		t.Log("something serves port 80 outside as well")
	}
}

// Without /proc nothing can be started: said at once.
func TestContainerWithoutProc(t *testing.T) {
	needNamespaces(t)
	root := image(t)
	r := world{Namespaces: asPid1, Root: root, NoProc: true, Env: containerVariables, Args: []string{"run"}}.start(t, root)
	if code := r.wait(); code != exitFailed {
		t.Errorf("ended with %d", code)
	}
	if said := r.said(); !strings.Contains(said, "mount -t proc proc /proc") {
		t.Errorf("said %q", said)
	}
}
