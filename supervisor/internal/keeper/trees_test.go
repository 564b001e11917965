package keeper_test

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// floors are the two ways to know the processes of a run.
func floors(t *testing.T, test func(t *testing.T, k *keeper.Local)) {
	t.Run("cgroup", func(t *testing.T) {
		if !cgroupsWork(t) {
			t.Skip("no writable cgroup v2")
		}
		test(t, newLocal(t, keeper.Options{}))
	})
	t.Run("no cgroup", func(t *testing.T) {
		// A reaper knows where to look: TestReaper runs these tests once more as one.
		reap := os.Getenv(roleEnv) == "trees"
		test(t, newLocal(t, keeper.Options{NoCgroup: true, Reap: reap}))
	})
}

func treesOfAReaper(t *testing.T) {
	t.Run("kill", TestKillEndsTheTree)
	t.Run("leftovers", TestLeftoversAreKilled)
	t.Run("nobody", TestNobodyKilled)
	t.Run("bystanders", TestBystandersLive)
	t.Run("none lost", TestNoneLost)
	t.Run("thousand", TestThousandExits)
	eventually(t, "zombies stay", func() bool { return len(zombies(t)) == 0 })
}

// said starts p with its descriptor 3 and output on a pipe, and returns what it
// says there.
func said(t testing.TB, k keeper.Keeper, id keeper.ID, p keeper.Process) *bufio.Scanner {
	t.Helper()
	w, r := pair(t)
	p.Output = w
	p.Env = append(p.Env, "NOTIFY_SOCKET=@test/"+id.String()+"/"+t.Name())
	ok(t, k.Spawn(id, p))
	unix.Close(w)
	if ev := next(t, k); ev.Kind != keeper.Execed {
		t.Fatalf("%+v", ev)
	}
	r.SetReadDeadline(time.Now().Add(patience))
	return bufio.NewScanner(r)
}

func pids(t testing.TB, s *bufio.Scanner, n int) []int {
	t.Helper()
	var list []int
	for len(list) < n {
		if !s.Scan() {
			t.Fatalf("said only %v: %v", list, s.Err())
		}
		for _, f := range strings.Fields(s.Text()) {
			pid, err := strconv.Atoi(f)
			ok(t, err)
			list = append(list, pid)
		}
	}
	return list
}

func state(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "gone"
	}
	s := string(b)
	return s[strings.LastIndexByte(s, ')')+2:][:1]
}

func lives(pid int) bool {
	s := state(pid)
	return s != "gone" && s != "Z" && s != "X"
}

// escapes are services that do not go when they are told to. Each says the pids
// of its processes, n of them, main one first.
var escapes = []struct {
	name   string
	script string
	n      int
}{
	{"ignores SIGTERM", `trap '' TERM; echo $$; while :; do sleep 1000; done`, 1},
	{"stopped", `echo $$; kill -STOP $$`, 1},
	{"children", `sleep 1000 & a=$!; sleep 1000 & echo $$ $a $!; wait`, 3},
	{"its own session", `setsid sh -c 'echo $$; exec sleep 1000' & sleep 1000 & echo $$; wait`, 2},
	{"double fork and setsid", `sh -c 'setsid sh -c "sh -c \"echo \\\$\\\$; exec sleep 1000\" & wait" & exit' ; echo $$; exec sleep 1000`, 2},
	{"a stopped grandchild", `sh -c 'echo $$; kill -STOP $$' & echo $$; wait; sleep 1000`, 2},
	{"a family", `f() { [ $1 -gt 0 ] && { f $(($1-1)) & f $(($1-1)) & }; sh -c 'echo $PPID'; while :; do sleep 1000; done; }; f 3`, 15},
}

// Kill ends every process of a run, and the news of its end comes after theirs.
func TestKillEndsTheTree(t *testing.T) {
	for _, e := range escapes {
		t.Run(e.name, func(t *testing.T) {
			floors(t, func(t *testing.T, k *keeper.Local) {
				web := id("web", 1)
				list := pids(t, said(t, k, web, shell(e.script)), e.n)
				ok(t, k.Signal(web, unix.SIGKILL))
				ev := next(t, k)
				if ev.Kind != keeper.Exited || ev.Signal != int(unix.SIGKILL) || ev.Killed < e.n-1 {
					t.Errorf("%+v", ev)
				}
				for _, pid := range list {
					if lives(pid) {
						t.Errorf("%d of %v lives (%s)", pid, list, state(pid))
					}
				}
			})
		})
	}
}

// What a service leaves behind when it exits is killed before its end is told,
// also a daemon that holds its output open.
func TestLeftoversAreKilled(t *testing.T) {
	const until = `; until [ -s $F ]; do :; done; exit 7`
	scripts := map[string]string{
		"child":                  `sleep 1000 & echo $!; exit 7`,
		"daemon":                 `setsid sh -c 'echo $$; echo >$F; exec sleep 1000' & ` + "\n" + until[2:],
		"daemon of a daemon":     `sh -c '(setsid sh -c "echo \$\$; echo >\$F; exec sleep 1000" &)'` + until,
		"stopped child":          `sh -c 'echo $$; echo >$F; kill -STOP $$' & ` + "\n" + until[2:],
		"child ignoring signals": `sh -c 'trap "" TERM HUP INT; echo $$; echo >$F; while :; do sleep 1000; done' & ` + "\n" + until[2:],
	}
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			floors(t, func(t *testing.T, k *keeper.Local) {
				p := shell(script)
				p.Env = append(p.Env, "F="+t.TempDir()+"/said")
				lines := said(t, k, id("web", 1), p)
				left := pids(t, lines, 1)
				ev := next(t, k)
				if ev.Kind != keeper.Exited || ev.Code != 7 || ev.Signal != 0 || ev.Killed == 0 {
					t.Errorf("%+v", ev)
				}
				if lives(left[0]) {
					t.Errorf("%d lives", left[0])
				}
				if lines.Scan() || lines.Err() != nil {
					t.Errorf("the output is still open: %q, %v", lines.Text(), lines.Err())
				}
			})
		})
	}
}

// A plain exit kills nobody, and says so.
func TestNobodyKilled(t *testing.T) {
	floors(t, func(t *testing.T, k *keeper.Local) {
		ok(t, k.Spawn(id("web", 1), shell(`true; exit 4`)))
		next(t, k)
		if ev := next(t, k); ev.Code != 4 || ev.Killed != 0 {
			t.Errorf("%+v", ev)
		}
	})
}

// SIGTERM reaches a stopped service: SIGCONT follows.
func TestTermWakesTheStopped(t *testing.T) {
	floors(t, func(t *testing.T, k *keeper.Local) {
		web := id("web", 1)
		main := pids(t, said(t, k, web, shell(`trap 'exit 5' TERM; echo $$; kill -STOP $$; sleep 1000 & wait`)), 1)[0]
		for end := time.Now().Add(patience); state(main) != "T"; {
			if time.Now().After(end) {
				t.Fatal("does not stop")
			}
		}
		ok(t, k.Signal(web, unix.SIGTERM))
		if ev := next(t, k); ev.Code != 5 {
			t.Errorf("%+v", ev)
		}
	})
}

// Two runs side by side: killing one leaves the other alone, also when both have
// strayed processes.
func TestBystandersLive(t *testing.T) {
	const script = `setsid sh -c 'echo $$; exec sleep 1000' & echo $$; wait; sleep 1000`
	floors(t, func(t *testing.T, k *keeper.Local) {
		a := pids(t, said(t, k, id("a", 1), shell(script)), 2)
		b := pids(t, said(t, k, id("b", 1), shell(script)), 2)
		ok(t, k.Signal(id("a", 1), unix.SIGKILL))
		if ev := next(t, k); ev.ID != id("a", 1) {
			t.Errorf("%+v", ev)
		}
		for _, pid := range a {
			if lives(pid) {
				t.Errorf("%d lives", pid)
			}
		}
		for _, pid := range b {
			if !lives(pid) {
				t.Errorf("bystander %d is dead", pid)
			}
		}
		ok(t, k.Signal(id("b", 1), unix.SIGKILL))
		next(t, k)
	})
}

func cgroupsWork(t testing.TB) bool {
	k := newLocal(t, keeper.Options{})
	w, r := pair(t)
	p := process("cat", "/proc/self/cgroup")
	p.Output = w
	ok(t, k.Spawn(id("probe", 1), p))
	unix.Close(w)
	next(t, k)
	next(t, k)
	b := make([]byte, 4096)
	n, _ := r.Read(b)
	return strings.Contains(string(b[:n]), "/sockd-")
}
