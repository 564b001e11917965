package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What `probe look` sees.
type seen struct {
	Pid, Umask       int
	Descriptors      []string
	Blocked, Ignored string
	Dir              string
	Env              []string
	Limit            uint64
}

func (s seen) variable(name string) (value string, ok bool) {
	for _, v := range s.Env {
		if n, value, _ := strings.Cut(v, "="); n == name {
			return value, true
		}
	}
	return "", false
}

const noSignals = "0000000000000000"

// manyVariables are as much as a program may be given and still pass on.
func manyVariables() (env []string) {
	for i := range 14 {
		env = append(env, fmt.Sprintf("LONG%d=%s", i, strings.Repeat("x", 120<<10)))
	}
	return env
}

// Worlds that a sockd may be started in. In each it serves, a service is started
// as it should be, and it leaves in order.
func TestHostileWorlds(t *testing.T) {
	for _, c := range []struct {
		name string
		w    world
		root bool
		want func(t *testing.T, s seen) // beside what is wanted everywhere
	}{
		{name: "nothing wrong"},
		{name: "one processor and hardly any memory", w: world{Vars: map[string]string{"GOMAXPROCS": "1", "GOMEMLIMIT": "1MiB", "GOGC": "5"}}},
		{name: "a steered runtime", w: world{Vars: map[string]string{"GODEBUG": "asyncpreemptoff=1,madvdontneed=1,nosuch=7", "GOTRACEBACK": "crash", "GORACE": "halt_on_error=1"}}},
		{name: "a steered loader", w: world{Vars: map[string]string{"LD_PRELOAD": "/nowhere/evil.so", "LD_LIBRARY_PATH": "/nowhere", "LD_BIND_NOW": "1"}}},
		{name: "1.7 MB of environment", w: world{Env: manyVariables()}},
		{name: "variables that are none", w: world{Env: []string{"=x", "novalue", "", "A B=1", "\xff=\xfe", "TWICE=1", "TWICE=2", "PATH=:::", "HOME="}}},
		{name: "no variables", w: world{Env: []string{}}},
		{name: "variables of a manager that is not there", w: world{Vars: map[string]string{"LISTEN_FDS": "7", "LISTEN_PID": "1", "LISTEN_FDNAMES": "a:b",
			"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "SOCKD_SAFE_MODE": "lies", "SOCKD_TRAMPOLINE": "1", "SOCKD_UNIT": "x"}}},
		{name: "128 descriptors", w: world{Limits: map[int]uint64{unix.RLIMIT_NOFILE: 128}}, want: func(t *testing.T, s seen) {
			if s.Limit != 128 {
				t.Errorf("the service may have %d descriptors", s.Limit)
			}
		}},
		{name: "umask 0777", w: world{Umask: 0o777}, want: func(t *testing.T, s seen) {
			if s.Umask != 0o777 {
				t.Errorf("the service has umask %o", s.Umask)
			}
		}},
		{name: "every signal blocked", w: world{Blocked: true}},
		{name: "SIGCHLD ignored", w: world{Ignored: []int{int(unix.SIGCHLD)}}},
		{name: "signals ignored", w: world{Ignored: []int{1, 2, 3, 13, 15, 17}}},
		{name: "descriptors 0 to 2 closed", w: world{Closed: true}},
		{name: "a working directory that has been removed", w: world{DirGone: true}},
		{name: "another user", root: true, w: world{UID: 65534}},
		{name: "another user with umask 0777", root: true, w: world{UID: 65534, Umask: 0o777}},
		{name: "nothing that runs may be written to disk", w: world{Limits: map[int]uint64{unix.RLIMIT_FSIZE: 1 << 16, unix.RLIMIT_CORE: 0}}},
		{name: "no memory may be locked and little stack", w: world{Limits: map[int]uint64{unix.RLIMIT_MEMLOCK: 0, unix.RLIMIT_STACK: 1 << 20}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.root {
				needRoot(t)
			}
			s := hostile(t, c.w)
			if c.want != nil && !t.Failed() {
				c.want(t, s)
			}
		})
	}
}

// hostile runs sockd in a world and returns what its service saw there.
func hostile(t *testing.T, w world) (s seen) {
	t.Helper()
	dir, out := shortDir(t), shortDir(t)
	os.Chmod(out, 0o777)
	probe := filepath.Join(built(t), "probe")
	address := filepath.Join(out, "s.sock")
	write(t, dir, "look.toml", fmt.Sprintf("[service]\nexec = [%q, \"look\", %q]\nstart = \"boot\"\n", probe, out+"/seen"))
	write(t, dir, "serve.toml", fmt.Sprintf("[service]\nexec = [%q, \"serve\"]\nready = \"notify\"\n[socket.s]\nlisten = \"unix://%s\"\n", probe, address))
	w.Args = []string{"run", "--runtime-dir", filepath.Join(out, "deep", "run"), dir}
	w.Dir = filepath.Join(out, "cwd")
	if err := os.Mkdir(w.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := w.start(t, out)
	started := func() bool {
		select {
		case <-r.ended:
			t.Fatalf("sockd ended with %d; it said\n%s", r.cmd.ProcessState.ExitCode(), r.said())
		default:
		}
		b, err := os.ReadFile(out + "/seen")
		return err == nil && json.Unmarshal(b, &s) == nil
	}
	eventually(t, "a service that was started", started)
	if _, err := served("unix", address); err != nil {
		t.Errorf("not served: %v\n%s", err, r.said())
	}
	if s.Blocked != noSignals || s.Ignored != noSignals {
		t.Errorf("the service began with blocked signals %s and ignored ones %s", s.Blocked, s.Ignored)
	}
	if s.Dir != dir {
		t.Errorf("the service runs in %q", s.Dir)
	}
	if len(s.Descriptors) != 3 {
		t.Errorf("the service has descriptors %q", s.Descriptors)
	}
	for _, name := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID", "SOCKD_SAFE_MODE", "SOCKD_TRAMPOLINE", "SOCKD_KEEPER_FD"} {
		if v, ok := s.variable(name); ok {
			t.Errorf("the service was given %s=%s", name, v)
		}
	}
	if v, _ := s.variable("SOCKD_UNIT"); v != "look" {
		t.Errorf("the service was given SOCKD_UNIT=%s", v)
	}
	r.signal(unix.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("ended with %d; it said\n%s", code, r.said())
	}
	for _, left := range []string{address, filepath.Join(out, "deep")} {
		if _, err := os.Lstat(left); err == nil {
			t.Errorf("left over: %s", left)
		}
	}
	return s
}

// said is what has come of standard error and was not taken by line.
func (r *running) said() string {
	var b strings.Builder
	for {
		select {
		case l := <-r.lines:
			b.WriteString(l + "\n")
		default:
			return b.String()
		}
	}
}

// What cannot be is refused at once, with an error that says why.
func TestHostileRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		w    world
		ns   bool
		says string
	}{
		{name: "20 descriptors", w: world{Limits: map[int]uint64{unix.RLIMIT_NOFILE: 20}}, says: "descriptors"},
		{name: "a keeper that is none", w: world{Vars: map[string]string{"SOCKD_KEEPER_FD": "99"}}, says: "SOCKD_KEEPER_FD"},
		{name: "a keeper that is no number", w: world{Vars: map[string]string{"SOCKD_KEEPER_FD": "lies"}}, says: "SOCKD_KEEPER_FD"},
		{name: "a supervisor that cannot be started", w: world{Answers: map[string]int{"setpgid": int(unix.EPERM)}}, says: "no supervisor stays"},
		{name: "/proc of other processes", ns: true, w: world{Namespaces: unix.CLONE_NEWPID}, says: "/proc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.ns {
				needNamespaces(t)
			}
			dir := shortDir(t)
			write(t, dir, "web.toml", fmt.Sprintf("[service]\nexec = [%q, \"serve\"]\nstart = \"boot\"\n[socket.s]\nlisten = \"unix://./s.sock\"\n", filepath.Join(built(t), "probe")))
			c.w.Args = []string{"run", dir}
			r := c.w.start(t, dir)
			if code := r.wait(); code != exitFailed {
				t.Errorf("ended with %d", code)
			}
			if said := r.said(); !strings.Contains(said, c.says) {
				t.Errorf("said %q, want something of %q", said, c.says)
			}
			if _, err := os.Lstat(filepath.Join(dir, "s.sock")); err == nil {
				t.Error("left over: the socket's path")
			}
		})
	}
}
