package keeper

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// local makes a keeper that holds what the one before held. It does not yet wait for
// its processes: that is resume.
func (h *handover) local(o Options) (*Local, error) {
	known := []int{h.Guard.Supervisor.Pid}
	for _, r := range h.Runs {
		known = append(known, r.Main.Pid)
		each(r.Formers, func(p savedProcess) { known = append(known, p.Pid) })
	}
	l, err := newLocal(o, known...)
	if err != nil {
		return nil, err
	}
	l.cgroup = h.Cgroup.Open()
	for _, s := range h.Record {
		l.journal.live[s.ID] = s
	}
	maps.Copy(l.journal.lastGen, h.LastGen)
	l.Ledger = NewLedger()
	l.store = nil // it has been told already
	for name, fd := range h.Held {
		if err := l.Hold(name, fd); err != nil {
			return nil, err
		}
	}
	l.store = o.Store
	for unit, state := range h.States {
		l.states[unit] = state
	}
	return l, nil
}

// resume lists the runs, posts the news that nobody has acknowledged once more, and
// follows what is running.
func (l *Local) resume(h *handover) {
	l.Ledger.restore(h.Children)
	for _, s := range h.Runs {
		r := &run{l: l, id: s.ID, mark: s.Mark, foreign: s.Foreign, main: sys.Inherit(s.Main.Pid, s.Main.Handle), leaf: s.Leaf.Open(), killed: map[int]bool{}}
		for _, pid := range s.Killed {
			r.killed[pid] = true
		}
		for _, f := range s.Formers {
			former := sys.Inherit(f.Pid, f.Handle)
			r.formers = append(r.formers, former)
			r.others.Go(func() {
				former.WaitDead()
				l.orphans.Reap(former)
			})
		}
		l.begin(r)
	}
	for _, c := range h.Children {
		if r := l.find(c.ID); r != nil && c.Last == unix.SIGKILL {
			r.signal(unix.SIGKILL) // it may have been on its way
		}
	}
}

// begin follows a run that has a process.
func (l *Local) begin(r *run) {
	l.mu.Lock()
	l.runs[r.id] = r
	l.mu.Unlock()
	main := r.main
	l.wg.Go(func() {
		defer l.forget(r)
		r.follow(main)
	})
}

// restore lists runs and queues their news.
func (l *Ledger) restore(children []Child) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range children {
		listed := c
		listed.Pending = slices.Clone(c.Pending)
		l.runs[c.ID] = &listed
		l.queue = append(l.queue, c.Pending...)
	}
	l.states = maps.Clone(l.states)
	l.more.Broadcast()
}
