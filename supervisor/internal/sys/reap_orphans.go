package sys

import (
	"os"
	"os/signal"
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
type Orphans struct {
	forks sync.RWMutex // held for writing by a sweep, so that none sees a child before it is known
	mu    sync.Mutex   // guards known
	known map[int]struct{}
	stop  func()
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
			o.sweep()
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
	if o == nil {
		p.Reap()
		return
	}
	// Forgotten before it is reaped, for then the number may mean another child; and
	// with no sweep in between, which would take it for an orphan.
	o.forks.RLock()
	defer o.forks.RUnlock()
	o.set(p.Pid, false)
	p.Reap()
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

// sweep reaps every dead child that is not known. Asking for any dead child is not
// enough: the kernel keeps naming the first, which may be known and still waiting
// for its leftovers to die, and the ones behind it would stay.
func (o *Orphans) sweep() {
	pids := o.children()
	for len(pids) > 0 {
		some := pids[:min(len(pids), atATime)]
		pids = pids[len(some):]
		o.reapUnknown(some)
	}
}

// atATime is how many are reaped while forks and exits of the known wait: a process
// that dies with thousands of children sends them all to us in one moment.
const atATime = 16

// children lists the children of ours; none if there is no dead one.
func (o *Orphans) children() []int {
	o.forks.Lock()
	defer o.forks.Unlock()
	if _, err := waitid(unix.P_ALL, 0, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL); err != nil {
		return nil
	}
	pids, err := childrenOf(os.Getpid())
	if err != nil {
		pids = childrenByLook()
	}
	return pids
}

// reapUnknown reaps those that are dead and not known. That they were when they
// were listed does not matter: while the lock is held, a child that is not known
// is an orphan.
func (o *Orphans) reapUnknown(pids []int) {
	o.forks.Lock()
	defer o.forks.Unlock()
	for _, pid := range pids {
		if !o.knows(pid) {
			waitid(unix.P_PID, pid, unix.WEXITED|unix.WNOHANG|unix.WALL)
		}
	}
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
