package sys

import (
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Subreaper makes orphaned descendants come to us instead of to process 1.
func Subreaper() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// Orphans reaps the dead children that nobody waits for: processes that services
// have left behind and that came to us as subreaper or as process 1. It never
// touches one that is known, and so must not be used in a program that has
// children of its own, for instance by os/exec. A nil *Orphans does nothing.
//
// Whoever waits for a known child never waits for a sweep, however many orphans
// there are: Reap takes none of the locks that a sweep holds while it reaps.
type Orphans struct {
	forks    sync.RWMutex // held for writing by a sweep, so that none sees a child before it is known
	sweeping sync.Mutex   // held by a sweep while it reaps, and by who needs a list with nobody missing
	mu       sync.Mutex   // guards what follows, and is held while a known child is reaped
	known    map[int]struct{}
	reaped   int // how many of the known
	stop     func()
}

// settle is how long the first SIGCHLD waits for company before one sweep serves
// all: an orphan is a zombie for that long and no longer.
const settle = 50 * time.Millisecond

// NewOrphans begins to reap. Children there are already that somebody waits for are
// known from the start.
func NewOrphans(known ...int) *Orphans {
	o := &Orphans{known: map[int]struct{}{}}
	for _, pid := range known {
		o.set(pid, true)
	}
	hint := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(hint, unix.SIGCHLD)
	o.stop = sync.OnceFunc(func() {
		signal.Stop(hint)
		close(done)
	})
	go o.watch(hint, done)
	return o
}

// watch takes SIGCHLD as a hint: signals merge, so they are not counted.
func (o *Orphans) watch(hint <-chan os.Signal, done <-chan struct{}) {
	timer := time.NewTimer(0) // some may have been there before us
	for {
		select {
		case <-timer.C:
			if !o.sweep() {
				timer.Reset(settle)
				continue
			}
			select {
			case <-hint:
			case <-done:
				return
			}
			timer.Reset(settle)
		case <-done:
			return
		}
	}
}

// Close ends the reaping.
func (o *Orphans) Close() {
	if o != nil {
		o.stop()
	}
}

// Fork runs f, which forks, and makes the child known before a sweep can see it.
func (o *Orphans) Fork(f func() (*Starting, error)) (*Starting, error) {
	if o == nil {
		return f()
	}
	o.forks.RLock()
	defer o.forks.RUnlock()
	s, err := f()
	if err == nil {
		o.set(s.Pid, true)
	}
	return s, err
}

// Adopt makes p known if check still finds it alive: from then on somebody waits for it.
func (o *Orphans) Adopt(p *Process, check func() bool) bool {
	if o == nil {
		return check()
	}
	o.forks.RLock()
	defer o.forks.RUnlock()
	if !check() {
		return false
	}
	o.set(p.Pid, true)
	return true
}

// Reap reaps p and forgets it.
func (o *Orphans) Reap(p *Process) {
	o.Strike(p)
	p.Close()
}

// Strike is Reap that leaves p's handle open, for who has something to tell before he
// closes it.
func (o *Orphans) Strike(p *Process) {
	if o == nil {
		p.reap()
		return
	}
	// Both as one: a sweep in between would take it for an orphan, or for known who has
	// its number next.
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.known, p.Pid)
	o.reaped++
	p.reap()
}

// Abandon takes Adopt back: p may be reaped as an orphan.
func (o *Orphans) Abandon(p *Process) {
	if o != nil {
		o.set(p.Pid, false)
	}
	p.Close()
}

func (o *Orphans) set(pid int, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if known {
		o.known[pid] = struct{}{}
	} else {
		delete(o.known, pid)
	}
}

// knows tells whether somebody waits for this child of ours.
func (o *Orphans) knows(pid int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.known[pid]
	return ok
}

// atATime is how many are reaped while forks wait: a process that dies with
// thousands of children sends them all to us in one moment.
const atATime = 16

// sweep reaps every dead child that is not known; not done if it may have missed
// one. Most times there are few, and the kernel names them one by one. But it keeps
// naming the first, which may be known and still waiting for its leftovers to die;
// the ones behind it are found in the list of all children, and so are many.
func (o *Orphans) sweep() (done bool) {
	if o.reapFirst() {
		return true
	}
	pids, exact, err := o.children()
	if err != nil {
		pids, exact = childrenByLook(), true
	}
	for some := range slices.Chunk(pids, atATime) {
		o.reapUnknown(some)
		runtime.Gosched() // who waits for a child of his own is not to wait for all of these
	}
	return exact
}

// reapFirst reaps the dead children as the kernel names them, up to a known one;
// true if none was left.
func (o *Orphans) reapFirst() (none bool) {
	o.forks.Lock()
	defer o.forks.Unlock()
	o.sweeping.Lock()
	defer o.sweeping.Unlock()
	for range atATime {
		pid := deadChild()
		if pid == 0 || o.knows(pid) {
			return pid == 0
		}
		reapNumber(pid)
	}
	return false
}

// reapUnknown reaps those that are dead and not known. That they were when they
// were listed does not matter: while forks wait, a child that is not known is an
// orphan.
func (o *Orphans) reapUnknown(pids []int) {
	o.forks.Lock()
	defer o.forks.Unlock()
	o.sweeping.Lock()
	defer o.sweeping.Unlock()
	for _, pid := range pids {
		if !o.knows(pid) {
			reapNumber(pid)
		}
	}
}

// children lists our children. It is not exact if one was reaped meanwhile: one
// that goes from the list while the kernel writes it can make it leave out another
// (children in proc_pid_task(5)). Sweeps are the caller's to keep away.
func (o *Orphans) children() (pids []int, exact bool, err error) {
	before := o.reapedSoFar()
	pids, err = childrenOf(os.Getpid())
	return pids, o.reapedSoFar() == before, err
}

func (o *Orphans) reapedSoFar() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.reaped
}

// deadChild is the first of our dead children that the kernel names; 0 for none.
func deadChild() int {
	pid, _, _ := waitidPid(unix.P_ALL, 0, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL)
	return pid
}

// isDeadChild tells whether pid is a dead child of ours, for a tenth of what it takes
// to read that in /proc.
func isDeadChild(pid int) bool {
	_, err := waitid(unix.P_PID, pid, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL)
	return err == nil
}

// reapNumber reaps pid if it is a dead child of ours.
func reapNumber(pid int) {
	waitid(unix.P_PID, pid, unix.WEXITED|unix.WNOHANG|unix.WALL)
}

// childrenByLook is childrenOf us where the kernel keeps no lists.
func childrenByLook() []int {
	snap, _ := lookAround()
	var pids []int
	for pid, s := range snap {
		if s.parent == os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}
