package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

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

// supervisorUnder finds the keeper's child that is sockd. One that has just been
// killed may have no successor yet, and a list of children that are coming and
// going is not always complete.
func supervisorUnder(t *testing.T, keeper int) (pid int) {
	t.Helper()
	eventually(t, "a supervisor", func() bool {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", keeper))
		for _, list := range lists {
			children, _ := os.ReadFile(list)
			for _, c := range strings.Fields(string(children)) {
				env, _ := os.ReadFile("/proc/" + c + "/environ")
				if strings.Contains(string(env), "SOCKD_KEEPER_FD=") {
					pid, _ = strconv.Atoi(c)
					return true
				}
			}
		}
		return false
	})
	return pid
}

// verb runs a command of the built sockd, which starts faster than the test binary.
func verb(t *testing.T, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(filepath.Join(built(t), "sockd"), args...)
	cmd.Env = []string{"SOCKD_RUNTIME_DIR=" + filepath.Join(dir, "run"), "NO_COLOR=1"}
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer late.Stop()
	cmd.Wait()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
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
		if out, errs, code := verb(t, dir, args...); code != 0 {
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
				if !strings.Contains(r.stdout.String(), "web@1 | serving\n") {
					t.Errorf("output: %q", r.stdout.String())
				}
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

// A keeper that cannot pass on what it knows stays, and with it all that was there.
func TestFaultUpgradeWithoutMemfd(t *testing.T) {
	r, dir, address := web(t, world{Answers: map[string]int{"memfd_create": int(unix.EPERM)}})
	r.line("web@1 ready")
	first, err := served("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	if out, errs, code := verb(t, dir, "upgrade", filepath.Join(built(t), "sockd")); code != exitRolledBack || !strings.Contains(errs, "memfd: operation not permitted") {
		t.Errorf("upgrade: %d %s%s", code, out, errs)
	}
	if second, err := served("unix", address); second != first {
		t.Errorf("%s served, and now %s (%v)", first, second, err)
	}
	exercise(t, r, dir, address)
}

// Neither way of starting works: said, and the socket stays.
func TestFaultNoWayToStart(t *testing.T) {
	r, _, address := web(t, world{Answers: map[string]int{"memfd_create": int(unix.ENOSYS), "close_range": int(unix.ENOSYS)}})
	if l := r.line("web@1 not started"); !strings.Contains(l, "memfd") {
		t.Errorf("said %q", l)
	}
	inode(t, address)
	r.signal(unix.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("ended with %d; it said\n%s", code, r.said())
	}
}

// With all descriptors taken, sockd says what it cannot do, does the rest, and
// loses nothing.
func TestFaultDescriptors(t *testing.T) {
	dir := shortDir(t)
	probe := filepath.Join(built(t), "probe")
	write(t, dir, "web.toml", fmt.Sprintf(webUnit, probe))
	write(t, dir, "many.toml", fmt.Sprintf("[service]\nexec = [%q, \"wait\"]\nstart = \"boot\"\ninstances = 60\nstart_timeout = \"0s\"\n", probe))
	r := world{Limits: map[int]uint64{unix.RLIMIT_NOFILE: 160}, Args: []string{"run", dir}}.start(t, dir)
	if l := r.line("many@.* not started"); !strings.Contains(l, "raise the limit") {
		t.Errorf("said %q", l)
	}
	address := filepath.Join(dir, "s.sock")
	if out, errs, code := verb(t, dir, "stop", "many"); code != 0 {
		t.Fatalf("stop: %d %s%s", code, out, errs)
	}
	exercise(t, r, dir, address)
}

// Too many sockets to hold: none is bound.
func TestFaultTooManySockets(t *testing.T) {
	dir := shortDir(t)
	var b strings.Builder
	for i := range 120 {
		fmt.Fprintf(&b, "[socket.s%d]\nlisten = \"unix://./%d.sock\"\n", i, i)
	}
	write(t, dir, "web.toml", b.String())
	r := world{Limits: map[int]uint64{unix.RLIMIT_NOFILE: 160}, Args: []string{"run", dir}}.start(t, dir)
	if code := r.wait(); code != exitFailed {
		t.Errorf("ended with %d", code)
	}
	if said := r.said(); !strings.Contains(said, "raise the limit") {
		t.Errorf("said %q", said)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.sock")); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

// A service takes every process and thread there is: those of sockd go on, and when
// it has gone, everything works again.
func TestFaultNoProcesses(t *testing.T) {
	needRoot(t)
	needNamespaces(t)
	for _, c := range []struct {
		name string
		w    func(t *testing.T) world
	}{
		// In a user namespace of nobody else's the limit would count from 0; a number that no account has does as well.
		{"RLIMIT_NPROC", func(t *testing.T) world { return world{UID: 61234, Limits: map[int]uint64{unix.RLIMIT_NPROC: 120}} }},
		{"pids cgroup", func(t *testing.T) world {
			return world{Groups: []string{group(t, "pids", "pids.max", "120")}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := c.w(t)
			dir := shortDir(t)
			probe := filepath.Join(built(t), "probe")
			write(t, dir, "web.toml", fmt.Sprintf(webUnit, probe))
			write(t, dir, "hog.toml", fmt.Sprintf("[service]\nexec = [%q, \"fork\"]\nrestart = \"no\"\n[socket.s]\nlisten = \"unix://./hog.sock\"\n", probe))
			if w.UID != 0 {
				if err := os.Chown(dir, w.UID, w.UID); err != nil {
					t.Fatal(err)
				}
			}
			out, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			w.Args, w.stdout = []string{"run", dir}, write
			r := w.start(t, dir)
			write.Close()
			r.line("web@1 ready")
			address := filepath.Join(dir, "s.sock")
			before, err := served("unix", address)
			if err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("unix", filepath.Join(dir, "hog.sock"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			full := make(chan string, 1)
			go func() {
				for sc := bufio.NewScanner(out); sc.Scan(); {
					if strings.Contains(sc.Text(), "| full") {
						full <- sc.Text()
					}
				}
			}()
			select {
			case l := <-full:
				t.Log(l)
			case <-time.After(patience):
				t.Fatalf("the hog is not full\n%s", r.said())
			}
			if out, errs, code := verb(t, dir, "restart", "web"); code != exitRolledBack || !strings.Contains(errs, "resource temporarily unavailable") {
				t.Errorf("restart with no process to be had: %d %s%s", code, out, errs)
			}
			unix.Kill(supervisorUnder(t, r.cmd.Process.Pid), unix.SIGKILL)
			// Nobody can be started in its place, but the sockets are held and the service serves.
			for range 20 {
				if pid, err := served("unix", address); err != nil || pid != before {
					t.Fatalf("%q %v, want %q\n%s", pid, err, before, r.said())
				}
			}
			kill(t, "hog")
			// Its caller is still there: it must not be started again for him.
			eventually(t, "a hog that is stopped", func() bool {
				_, _, code := verb(t, dir, "stop", "hog")
				if code != 0 {
					kill(t, "hog")
				}
				return code == 0
			})
			if out, errs, code := verb(t, dir, "restart", "web"); code != 0 {
				t.Errorf("restart when it is over: %d %s%s\n%s", code, out, errs, r.said())
			}
			exercise(t, r, dir, address)
		})
	}
}

// kill ends every process of a unit that this test's sockd has started.
func kill(t *testing.T, unit string) {
	t.Helper()
	mark := "\x00SOCKD_UNIT=" + unit + "\x00"
	programs := built(t)
	exes, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range exes {
		if name, err := os.Readlink(exe); err != nil || filepath.Dir(name) != programs {
			continue
		}
		env, _ := os.ReadFile(filepath.Join(filepath.Dir(exe), "environ"))
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(exe))); err == nil && strings.Contains("\x00"+string(env), mark) {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// group makes a cgroup of version 1 with a limit.
func group(t *testing.T, controller, file, value string) string {
	t.Helper()
	dir := fmt.Sprintf("/sys/fs/cgroup/%s/sockd-test-%d", controller, os.Getpid())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("no cgroup of %s: %v", controller, err)
	}
	t.Cleanup(func() {
		eventually(t, "an empty cgroup", func() bool { return os.Remove(dir) == nil })
	})
	if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o644); err != nil {
		t.Skipf("no limit of %s: %v", controller, err)
	}
	return dir
}

// With a hundredth of a processor everything is slow, and nothing is lost.
func TestFaultSlow(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long, and the race detector sees nothing new in it: without -short")
	}
	needRoot(t)
	quota := "5000" // of 100,000 microseconds
	if *full {
		quota = "1000"
	}
	r, dir, address := web(t, world{Groups: []string{group(t, "cpu", "cpu.cfs_quota_us", quota)}})
	begun := time.Now()
	r.line("web@1 ready")
	ready := time.Since(begun)
	exercise(t, r, dir, address)
	t.Logf("with %s of 100,000 us of processor: ready after %v, everything done after %v", quota, ready.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))
}
