package sys

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A reaper to which orphans have come that nobody reaps yet: the test does, step by
// step. It takes over a whole process.
func TestCrowdOfOrphans(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"=crowded", "GORACE=atexit_sleep_ms=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func init() { roles["crowded"] = crowded }

func crowded() int {
	const crowd = 50
	bad := 0
	check := func(ok bool, text string, a ...any) {
		if !ok {
			fmt.Printf(text+"\n", a...)
			bad = 1
		}
	}
	if err := Subreaper(); err != nil {
		fmt.Println(err)
		return 1
	}
	o := &Orphans{known: map[int]struct{}{}}
	run := func(script string) *Starting {
		s := spec("sh", "-c", script)
		s.Output = -1
		child, err := o.Fork(func() (*Starting, error) { return Start(&s) })
		if err == nil {
			err = child.Execed()
		}
		check(err == nil, "start: %v", err)
		return child
	}
	zombies := func() (n int) {
		pids, _ := childrenOf(os.Getpid())
		for _, pid := range pids {
			if isDeadChild(pid) {
				n++
			}
		}
		return n
	}
	// Its children have died, and come to us with its end; one lives on, elsewhere.
	brood := run(fmt.Sprintf("sleep 1000 & for i in $(seq %d); do : & done; kill -STOP $$", crowd))
	unix.Waitid(unix.P_PID, brood.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil)
	main := run("exit 5")
	main.WaitDead()
	brood.Signal(unix.SIGKILL)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(longWait); zombies() < crowd+2 && time.Now().Before(end); <-tick.C {
	}
	check(zombies() == crowd+2, "%d zombies", zombies())

	// A look reads of the dead only what it has been asked about.
	read := func(marks ...Mark) (n int, found [][]stat) {
		snap, err := o.lookBelow(marks)
		check(err == nil, "look: %v", err)
		for _, s := range snap {
			if s.pid != 0 {
				n++
			}
		}
		return n, snap.members(marks)
	}
	n, found := read(Mark{Main: main.Pid})
	check(n == 3, "read of %d processes, not of us, the one asked about and the living one", n)
	check(len(found[0]) == 0, "members: %v", found)

	// While a sweep is at it, an exit goes through.
	o.forks.Lock()
	o.sweeping.Lock()
	through := make(chan struct{})
	go func() {
		o.Reap(main.Process)
		close(through)
	}()
	select {
	case <-through:
	case <-time.After(longWait):
		fmt.Println("an exit waits for a sweep")
		return 1
	}
	o.sweeping.Unlock()
	o.forks.Unlock()
	check(!isDeadChild(main.Pid) && !o.knows(main.Pid), "not reaped")

	// A sweep reaps them in portions, for which forks wait.
	o.Reap(brood.Process)
	check(!o.reapFirst(), "the first are all")
	check(zombies() == crowd-atATime, "%d zombies left by the first portion", zombies())
	// The known stay, though the kernel names one of them first.
	known := run("exit 6")
	known.WaitDead()
	check(o.sweep(), "missed one")
	check(zombies() == 1 && isDeadChild(known.Pid), "%d zombies left", zombies())
	check(!o.reapFirst(), "the known one is not dead")
	o.Reap(known.Process)
	check(o.sweep() && zombies() == 0, "%d zombies at last", zombies())

	pids, _ := childrenOf(os.Getpid())
	check(len(pids) == 1, "children: %v", pids)
	for _, pid := range pids {
		unix.Kill(pid, unix.SIGKILL)
	}
	return bad
}
