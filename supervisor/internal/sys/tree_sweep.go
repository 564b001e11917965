package sys

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// A Sweeper finds and ends the processes of runs that have no cgroup. One look at
// /proc serves everybody who has asked before it began, so that a thousand runs
// that end together cost two looks and not a thousand.
type Sweeper struct {
	// Orphans, if not nil, says that they come to us: then only what is below us needs
	// to be looked at. Set it before use.
	Orphans *Orphans

	mu    sync.Mutex
	next  *look // not yet begun
	busy  bool
	looks int // so far
}

type look struct {
	marks []Mark
	found [][]stat
	err   error
	done  chan struct{}
}

// members looks around, together with others, and returns who belongs to m.
func (w *Sweeper) members(m Mark) ([]stat, error) {
	w.mu.Lock()
	if w.next == nil {
		w.next = &look{done: make(chan struct{})}
	}
	l, i := w.next, len(w.next.marks)
	l.marks = append(l.marks, m)
	if !w.busy {
		w.busy = true
		go w.work()
	}
	w.mu.Unlock()
	<-l.done
	if l.err != nil {
		return nil, l.err
	}
	return l.found[i], nil
}

// work looks until nobody asks any more.
func (w *Sweeper) work() {
	for {
		w.mu.Lock()
		l := w.next
		w.next = nil
		if l == nil {
			w.busy = false
			w.mu.Unlock()
			return
		}
		w.looks++
		w.mu.Unlock()
		var snap snapshot
		if snap, l.err = w.look(l.marks); l.err == nil {
			l.found = snap.members(l.marks)
		}
		close(l.done)
	}
}

func (w *Sweeper) look(marks []Mark) (snapshot, error) {
	if w.Orphans != nil && !slices.ContainsFunc(marks, func(m Mark) bool { return m.Foreign }) {
		if snap, err := w.Orphans.lookBelow(marks); err == nil {
			return snap, nil
		}
	}
	return lookAround()
}

// Has tells whether pid is a living process of the run.
func (w *Sweeper) Has(m Mark, pid int) bool {
	list, err := w.members(m)
	for _, s := range list {
		if s.pid == pid {
			return err == nil
		}
	}
	return false
}

// KillRest kills the processes of the run but for its main process, and returns
// when none is left; killed is called for each. What the kernel holds is waited
// for; what we may not kill is an error.
func (w *Sweeper) KillRest(m Mark, killed func(pid int)) error {
	for {
		list, err := w.members(m)
		if err != nil || len(list) == 0 {
			return err
		}
		if err := killEach(list, killed); err != nil {
			return err
		}
	}
}

// KillAll kills main and those found to belong to it while it still tied them
// together. It is one round: what they forked meanwhile is KillRest's business.
func (w *Sweeper) KillAll(m Mark, main *Process, killed func(pid int)) error {
	list, err := w.members(m)
	// Before the others: it might see them die, and come to an end of its own.
	return errors.Join(err, main.Signal(unix.SIGKILL), killEach(list, killed))
}

func killEach(list []stat, killed func(pid int)) error {
	var dying []*Process
	var errs []error
	for _, s := range list {
		p, err := killExactly(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("kill process %d: %w", s.pid, err))
		} else if p != nil {
			killed(s.pid)
			dying = append(dying, p)
		}
	}
	for _, p := range dying {
		p.WaitDead()
		p.Close()
	}
	return errors.Join(errs...)
}

// killExactly kills the process that was seen, and not one that has got its
// number since. It is nil if there is nothing left to kill.
func killExactly(s stat) (*Process, error) {
	p, err := Open(s.pid)
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	now, ok := readStat(s.pid)
	if ok = ok && now.start == s.start && !now.dead(); ok {
		err = p.Signal(unix.SIGKILL)
	}
	if !ok || err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Stopped tells whether the process is stopped by a signal. Being held by a debugger does
// not count.
func (p *Process) Stopped() bool {
	s, ok := readStat(p.Pid)
	return ok && s.stopped()
}

// Alive tells whether the process lives: a zombie does not.
func (p *Process) Alive() bool {
	s, ok := readStat(p.Pid)
	return ok && !s.dead() && p.Signal(0) == nil
}
