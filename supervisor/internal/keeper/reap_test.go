package keeper_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

var spawns = flag.Int("spawns", 300, "how many programs TestNoneLost starts")

// A keeper that reaps takes over its whole process, so its tests run in one of
// their own: this test binary once more, with this variable naming the test.
const roleEnv = "SOCKD_TEST_ROLE"

func TestReaper(t *testing.T) {
	roles := map[string]func(t *testing.T){"orphans": reapsOrphans, "main": adoptsMain, "many": noneLost, "trees": treesOfAReaper}
	if name := os.Getenv(roleEnv); name != "" {
		roles[name](t)
		return
	}
	for name := range roles {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestReaper$", "-test.v")
			cmd.Env = append(os.Environ(), roleEnv+"="+name)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// zombies lists the dead children of this process.
func zombies(t testing.TB) []string {
	t.Helper()
	var dead []string
	threads, err := os.ReadDir("/proc/self/task")
	ok(t, err)
	for _, thread := range threads {
		b, _ := os.ReadFile("/proc/self/task/" + thread.Name() + "/children")
		for _, pid := range strings.Fields(string(b)) {
			stat, _ := os.ReadFile("/proc/" + pid + "/stat")
			if strings.Contains(string(stat), ") Z ") {
				dead = append(dead, pid)
			}
		}
	}
	return dead
}

// eventually is for what the kernel tells nobody, such as that a zombie has gone.
func eventually(t testing.TB, complaint string, happened func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !happened(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal(complaint)
		}
	}
}

// reapsOrphans: daemons of a living run die, come to us and are reaped; the run's
// own status is not touched.
func reapsOrphans(t *testing.T) {
	for _, noCgroup := range []bool{false, true} {
		k := newLocal(t, keeper.Options{Reap: true, NoCgroup: noCgroup})
		// The output stays open until the last of them is dead.
		out := said(t, k, id("web", 1), shell(`for i in 1 2 3 4 5 6 7 8 9 10; do (setsid sh -c 'exit 3' &); done; echo $$; exec >/dev/null 2>&1; sleep 1000`))
		pids(t, out, 1)
		if out.Scan() || out.Err() != nil {
			t.Error(out.Text(), out.Err())
		}
		eventually(t, "zombies stay", func() bool { return len(zombies(t)) == 0 })
		ok(t, k.Signal(id("web", 1), unix.SIGTERM))
		if ev := next(t, k); ev.Kind != keeper.Exited || ev.Signal != int(unix.SIGTERM) {
			t.Errorf("%+v", ev)
		}
		eventually(t, "zombies stay", func() bool { return len(zombies(t)) == 0 })
		ok(t, k.Close())
	}
}

// adoptsMain: a service that daemonises and names its daemon with MAINPID= ends
// when the daemon does, with the daemon's status.
func adoptsMain(t *testing.T) {
	for _, noCgroup := range []bool{false, true} {
		k := newLocal(t, keeper.Options{Reap: true, NoCgroup: noCgroup})
		mainPid(t, k, true)
		ok(t, k.Close())
	}
}

func mainPid(t *testing.T, k *keeper.Local, adopted bool) {
	const script = `sh -c 'trap "exit 9" TERM; echo $$; read x <$F; exec 1>&-; while :; do sleep 1000 & wait; done' & echo $$; read x <$G; exit 4`
	start := func(gen uint64) (fifo, goOn string, first, daemon int) {
		fifo, goOn = t.TempDir()+"/f", t.TempDir()+"/g"
		ok(t, unix.Mkfifo(fifo, 0o600))
		ok(t, unix.Mkfifo(goOn, 0o600))
		p := shell(script)
		p.Env = append(p.Env, "F="+fifo, "G="+goOn)
		list := pids(t, said(t, k, id("web", gen), p), 2)
		first, daemon = list[0], list[1]
		for _, c := range children(t, k) {
			if c.ID == id("web", gen) && c.Pid != first {
				first, daemon = daemon, first
			}
		}
		return
	}
	write := func(name string) {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		ok(t, err)
		fmt.Fprintln(f)
		f.Close()
	}

	// The former main process exits first: an orphan's exit, and no news.
	fifo, goOn, first, daemon := start(1)
	ok(t, k.SetMain(id("web", 1), daemon))
	ok(t, k.SetMain(id("web", 1), daemon))
	write(goOn)
	eventually(t, "the former main process is not reaped", func() bool { return state(first) == "gone" })
	write(fifo)
	ok(t, k.Signal(id("web", 1), unix.SIGTERM))
	ev := next(t, k)
	if ev.Kind != keeper.Exited || ev.Pid != daemon || ev.Code != 9 && ev.Err == "" {
		t.Errorf("%+v", ev)
	}
	if adopted && (ev.Code != 9 || ev.Err != "") {
		t.Errorf("%+v", ev)
	}
	eventually(t, "the daemon is not reaped", func() bool { return state(daemon) == "gone" })

	// The new main process exits first: the end of the run, and the former one a leftover.
	fifo, _, first, daemon = start(2)
	ok(t, k.SetMain(id("web", 2), daemon))
	write(fifo)
	ok(t, k.Signal(id("web", 2), unix.SIGKILL))
	if ev = next(t, k); ev.Kind != keeper.Exited || ev.Pid != daemon || ev.Signal != int(unix.SIGKILL) && ev.Err == "" || ev.Killed == 0 {
		t.Errorf("%+v", ev)
	}
	if lives(first) || lives(daemon) {
		t.Error("something is left")
	}
	eventually(t, "zombies stay", func() bool { return len(zombies(t)) == 0 })

	// Somebody else's process, a dead one and ourselves are no main process.
	_, goOn, first, daemon = start(3)
	other := exec.Command("sleep", "1000")
	ok(t, other.Start())
	defer other.Wait()
	defer other.Process.Kill()
	for _, pid := range []int{other.Process.Pid, os.Getpid(), 1, 0, -5, 1 << 22} {
		if k.SetMain(id("web", 3), pid) == nil {
			t.Errorf("%d became the main process", pid)
		}
	}
	ok(t, unix.Kill(daemon, unix.SIGKILL))
	eventually(t, "the daemon does not die", func() bool { return !lives(daemon) })
	if k.SetMain(id("web", 3), daemon) == nil {
		t.Error("a dead process became the main process")
	}
	write(goOn)
	if ev = next(t, k); ev.Pid != first || ev.Code != 4 {
		t.Errorf("%+v", ev)
	}
}

// Where orphans are not ours, the status of a named main process comes from the
// kernel if it is new enough, and else is said to be unknown.
func TestMainWithoutReaping(t *testing.T) {
	floors(t, func(t *testing.T, k *keeper.Local) { mainPid(t, k, false) })
}

// Every start has its end, with the right code or signal, and leaves no zombie.
func noneLost(t *testing.T) {
	k := newLocal(t, keeper.Options{Reap: true})
	manyStarts(t, k, *spawns)
	eventually(t, "zombies stay", func() bool { return len(zombies(t)) == 0 })
}

func manyStarts(t *testing.T, k *keeper.Local, n int) {
	const abreast = 64
	p := process("/bin/true")
	started, ended := 0, 0
	for ; started < min(abreast, n); started++ {
		ok(t, k.Spawn(id("web", uint64(started)), p))
	}
	for ended < n {
		ev := next(t, k)
		ok(t, k.Acknowledge(ev))
		if ev.Kind == keeper.Execed {
			continue
		}
		if ev.Kind != keeper.Exited || ev.Code != 0 || ev.Signal != 0 {
			t.Fatalf("%+v", ev)
		}
		if ended++; started < n {
			ok(t, k.Spawn(id("web", uint64(started)), p))
			started++
		}
	}
	if c := children(t, k); len(c) != 0 {
		t.Errorf("%d are still listed", len(c))
	}
}

func TestNoneLost(t *testing.T) {
	floors(t, func(t *testing.T, k *keeper.Local) { manyStarts(t, k, *spawns) })
}

// A thousand services that exit in the same moment.
func TestThousandExits(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 100
	}
	var limit unix.Rlimit
	ok(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	n = min(n, int(limit.Cur/4)) // each takes one at least
	floors(t, func(t *testing.T, k *keeper.Local) {
		var gate [2]int
		ok(t, unix.Pipe2(gate[:], unix.O_CLOEXEC))
		ok(t, k.Hold("gate", gate[0]))
		for i := range n {
			// All block in one read, and go on when the writing end is closed.
			script := fmt.Sprintf(`read x <&3; exit %d`, i%256)
			if i%3 == 0 {
				script = fmt.Sprintf(`read x <&3; kill -%d $$`, []int{9, 15, 6, 11}[i%4])
			}
			p := shell(script)
			p.Sockets = []string{"gate"}
			ok(t, k.Spawn(id("web", uint64(i)), p))
		}
		for range n {
			if ev := next(t, k); ev.Kind != keeper.Execed {
				t.Fatalf("%+v", ev)
			}
		}
		unix.Close(gate[1])
		for range n {
			ev := next(t, k)
			i := int(ev.ID.Gen)
			code, sig := i%256, 0
			if i%3 == 0 {
				code, sig = 0, []int{9, 15, 6, 11}[i%4]
			}
			if ev.Kind != keeper.Exited || ev.Code != code || ev.Signal != sig {
				t.Errorf("%d: %+v", i, ev)
			}
		}
		if left := zombies(t); len(left) > 0 {
			t.Errorf("zombies: %v", left)
		}
	})
}

// Children of the program that embeds us are its own: os/exec gets every status.
func TestForeignChildren(t *testing.T) {
	floors(t, func(t *testing.T, k *keeper.Local) {
		const n = 100
		wrong := make(chan error, n)
		for i := range n {
			go func() {
				err := exec.Command("/bin/sh", "-c", fmt.Sprintf("exit %d", 1+i)).Run()
				if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1+i {
					wrong <- fmt.Errorf("%d: %w", i, err)
					return
				}
				wrong <- nil
			}()
		}
		manyStarts(t, k, n)
		for range n {
			if err := <-wrong; err != nil {
				t.Error(err)
			}
		}
	})
}

// Each signal that kills is told as such.
func TestDeathBySignal(t *testing.T) {
	k := newLocal(t, keeper.Options{})
	gen := uint64(0)
	for sig := 1; sig <= 64; sig++ {
		switch unix.Signal(sig) {
		case unix.SIGCHLD, unix.SIGCONT, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGURG, unix.SIGWINCH, 32, 33:
			continue // do not kill, or belong to the C library
		}
		gen++
		ok(t, k.Spawn(id("web", gen), process("sleep", "1000")))
		next(t, k)
		ok(t, k.Signal(id("web", gen), unix.Signal(sig)))
		if ev := next(t, k); ev.Signal != sig || ev.Code != 0 {
			t.Errorf("signal %d: %+v", sig, ev)
		}
	}
}
