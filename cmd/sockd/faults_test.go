package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The rows of docs/faults.md, each made to happen.

// A webUnit serves on a Unix socket in its folder.
const webUnit = "[service]\nexec = [%q, \"serve\"]\nready = \"notify\"\nstart = \"boot\"\nstop_timeout = \"5s\"\n[socket.s]\nlisten = \"unix://./s.sock\"\n"

// web starts a sockd in a world with a unit that serves, and returns the address.
func web(t *testing.T, w world) (r *running, dir, address string) {
	t.Helper()
	dir = shortDir(t)
	write(t, dir, "web.toml", fmt.Sprintf(webUnit, filepath.Join(built(t), "probe")))
	if w.UID != 0 {
		if err := os.Chown(dir, w.UID, w.UID); err != nil {
			t.Fatal(err)
		}
	}
	w.Args = []string{"run", dir}
	return w.start(t, dir), dir, filepath.Join(dir, "s.sock")
}

// inode of a socket's path, and of the socket: what must not change.
func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// supervisorUnder finds the keeper's child that is sockd.
func supervisorUnder(t *testing.T, keeper int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", keeper, keeper))
	children := strings.Fields(string(b))
	if err != nil || len(children) == 0 { // the children of other threads are elsewhere
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", keeper))
		for _, f := range tasks {
			b, _ := os.ReadFile(f)
			children = append(children, strings.Fields(string(b))...)
		}
	}
	for _, c := range children {
		env, _ := os.ReadFile("/proc/" + c + "/environ")
		if strings.Contains(string(env), "SOCKD_KEEPER_FD=") {
			pid, _ := strconv.Atoi(c)
			return pid
		}
	}
	t.Fatal("the keeper has no supervisor")
	return 0
}

// exercise does with a running sockd what there is to do: calls, a restart, a
// service killed, a supervisor killed, a stop. The socket stays the same throughout.
func exercise(t *testing.T, r *running, dir, address string) {
	t.Helper()
	ino := inode(t, address)
	ask := func() string {
		t.Helper()
		pid, err := served("unix", address)
		if err != nil {
			t.Fatalf("not served: %v\n%s", err, r.said())
		}
		return pid
	}
	command := func(args ...string) {
		t.Helper()
		if out, errs, code := sockd(t, dir, args...); code != 0 {
			t.Fatalf("%v: code %d %s%s\n%s", args, code, out, errs, r.said())
		}
	}
	first := ask()
	command("restart", "web")
	second := ask()
	if second == first {
		t.Error("restarted, and the same process serves")
	}
	pid, _ := strconv.Atoi(second)
	unix.Kill(pid, unix.SIGKILL)
	third := ask()
	old := supervisorUnder(t, r.cmd.Process.Pid)
	unix.Kill(old, unix.SIGKILL)
	if again := ask(); again != third {
		t.Errorf("the supervisor was killed, and %s serves instead of %s", again, third)
	}
	command("status")
	command("stop", "web")
	command("start", "web")
	ask()
	if now := inode(t, address); now != ino {
		t.Error("the socket is another one")
	}
	r.signal(unix.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("ended with %d; it said\n%s", code, r.said())
	}
}

// System calls that a filter, or an old kernel, does not have: all served.
func TestFaultMissingCalls(t *testing.T) {
	for _, call := range []string{"pidfd_open", "pidfd_send_signal", "clone3", "close_range", "memfd_create", "epoll_pwait2", "tee", "bpf", "pidfd_getfd"} {
		for _, errno := range []syscall.Errno{unix.ENOSYS, unix.EPERM} {
			t.Run(call+" "+unix.ErrnoName(errno), func(t *testing.T) {
				t.Parallel()
				r, dir, address := web(t, world{Answers: map[string]int{call: int(errno)}})
				r.line("web@1 ready")
				exercise(t, r, dir, address)
			})
		}
	}
	t.Run("everything new", func(t *testing.T) {
		all := map[string]int{}
		for _, call := range []string{"pidfd_open", "pidfd_send_signal", "clone3", "close_range", "epoll_pwait2", "bpf", "pidfd_getfd"} {
			all[call] = int(unix.ENOSYS)
		}
		r, dir, address := web(t, world{Answers: all})
		r.line("web@1 ready")
		exercise(t, r, dir, address)
	})
}
