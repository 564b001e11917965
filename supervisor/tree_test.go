package supervisor

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/sys"
)

func init() {
	// Waits for SIGTERM and ends; TEST_SHELL runs in a shell beside it.
	roles["beside"] = func() {
		if text := os.Getenv("TEST_SHELL"); text != "" {
			_, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", strings.ReplaceAll(text, "_", " ")},
				&syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(90)
			}
		}
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		notify("READY=1")
		<-c
	}
}

// N8: whatever a service does, nothing of it is left when stop returns.
func TestStopEndsAll(t *testing.T) {
	for _, tree := range []struct {
		name string
		o    keeper.Options
	}{
		{"cgroup", keeper.Options{}},
		{"no cgroup", keeper.Options{NoCgroup: true}},
	} {
		stopped, left := 0, 0
		t.Run(tree.name, func(t *testing.T) {
			for _, c := range []struct {
				name    string
				role    string
				before  func(t *testing.T, pid int)
				because string // what stop says
				signal  string
				killing bool
			}{
				{name: "stopped by SIGSTOP", role: "beside", before: suspend},
				{name: "ignores SIGTERM", role: "deaf", because: "web@1 had to be killed", signal: "SIGKILL", killing: true},
				{name: "ignores SIGTERM and is stopped", role: "deaf", before: suspend,
					because: "web@1 had to be killed", signal: "SIGKILL", killing: true},
				{name: "double fork and setsid", role: "beside TEST_SHELL=(setsid_sh_-c_'trap_:_TERM_HUP;_echo_$$>pid.new;_mv_pid.new_pid;_while_:;do_sleep_100;done'&)",
					because: "web@1 left other processes, "},
				{name: "a grandchild keeps the output open", role: "beside TEST_SHELL=trap_:_TERM;_echo_$$>pid.new;_mv_pid.new_pid;_echo_hello;_while_:;do_sleep_100;done",
					because: "web@1 left other processes, "},
			} {
				t.Run(c.name, func(t *testing.T) {
					timeout := "30s"
					if c.killing {
						timeout = "300ms"
					}
					f := prepareOn(t, tree.o, "web", `
[service]
role = `+c.role+`
ready = "notify"
start = "boot"
stop_timeout = "`+timeout+`"
[socket.x]
listen = "unix://./x.sock"
`)
					f.start()
					pid := f.awaitState("web", 1, "ready").Pid
					other := 0
					if strings.Contains(c.role, "SHELL") {
						waitFor(t, "the other process", func() bool {
							text, err := os.ReadFile(filepath.Join(f.dir, "pid"))
							other, _ = strconv.Atoi(strings.TrimSpace(string(text)))
							return err == nil
						})
					}
					if c.before != nil {
						c.before(t, pid)
					}
					began := time.Now()
					out := f.do("stop", "web", Done)
					took := time.Since(began)
					for _, p := range []int{pid, other} {
						if p != 0 && alive(p) {
							t.Errorf("process %d is alive", p)
							left++
						}
					}
					if (c.because == "") != (out.Because == "") || !strings.HasPrefix(out.Because, c.because) {
						t.Errorf("stop says %q, want %q", out.Because, c.because)
					}
					killing := false
					e := f.await("its end", func(e Event) bool {
						killing = killing || e.What == "killing" && strings.Contains(e.Because, "stop timeout of 300ms")
						return e.What == "exited"
					})
					if e.Exit.Signal != c.signal || e.Exit.Cause != "stop" || killing != c.killing || (e.Exit.Killed > 0) != (other != 0) {
						t.Errorf("exit %+v, told of the killing: %t", e.Exit, killing)
					}
					if took > patience { // 200 times what it may take
						t.Errorf("took %v", took)
					}
					f.stop()
					if _, err := os.Lstat(filepath.Join(f.dir, "x.sock")); err == nil {
						t.Error("a path is left")
					}
					stopped++
				})
			}
			t.Logf("promise N8: %d obstinate services stopped (%s), %d processes left", stopped, tree.name, left)
		})
	}
}

// suspend stops a process as kill -STOP does, and waits until it stands still: until
// one of its threads has taken the signal, the others go on, and accept.
func suspend(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 { // a process group, or everybody
		t.Fatalf("pid %d", pid)
	}
	syscall.Kill(pid, syscall.SIGSTOP)
	waitFor(t, "the stop", func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		return len(threads) > 0 && !slices.ContainsFunc(threads, func(stat string) bool {
			text, err := os.ReadFile(stat)
			return err == nil && !strings.Contains(string(text), ") T ")
		})
	})
}

// kill ends a process as kill -KILL does, and waits until it is dead: until then it may
// take what the next one is to have.
func kill(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 { // nobody yet: a process group, ours
		t.Fatalf("pid %d", pid)
	}
	p, err := sys.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.WaitDead()
}

// alive: a zombie is not.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func TestEndOfTheMainProcessEndsTheRest(t *testing.T) {
	for _, o := range []keeper.Options{{}, {NoCgroup: true}} {
		t.Run(fmt.Sprintf("no cgroup %t", o.NoCgroup), func(t *testing.T) {
			f := prepareOn(t, o, "web", `
[service]
role = beside TEST_SHELL=trap_:_TERM;_echo_$$>pid.new;_mv_pid.new_pid;_while_:;do_sleep_100;done
ready = "notify"
start = "boot"
restart_delay = "10ms"
`)
			f.start()
			var pids []int
			for range 3 {
				e := f.awaitState("web", 1, "ready")
				other := 0
				waitFor(t, "the other process", func() bool {
					text, _ := os.ReadFile(filepath.Join(f.dir, "pid"))
					other, _ = strconv.Atoi(strings.TrimSpace(string(text)))
					return other != 0
				})
				os.Remove(filepath.Join(f.dir, "pid"))
				pids = append(pids, e.Pid, other)
				kill(t, e.Pid)
				exit := f.awaitState("web", 1, "exited").Exit
				if exit.Signal != "SIGKILL" || exit.Cause != "by itself" || exit.Killed == 0 || alive(other) {
					t.Errorf("%+v; the other is alive: %t", exit, alive(other))
				}
			}
			f.stop()
			for _, pid := range pids {
				if alive(pid) {
					t.Errorf("process %d is alive", pid)
				}
			}
		})
	}
}
