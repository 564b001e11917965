package keeper

import (
	"log/slog"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// Cgroups are made and removed when nobody waits for that: the one of the next run when a
// run has become its program, the one of a run that has ended when it is struck off the list.

// takeLeaf is the cgroup that was made ahead of time, or a new one.
func (l *Local) takeLeaf() (*sys.Leaf, error) {
	select {
	case leaf := <-l.spare:
		return leaf, nil
	default:
		return l.cgroup.NewLeaf()
	}
}

// makeSpare makes a cgroup for the next run.
func (l *Local) makeSpare() {
	if l.cgroup == nil || len(l.spare) > 0 {
		return
	}
	leaf, err := l.cgroup.NewLeaf()
	if err != nil {
		return // the next run will say so
	}
	select {
	case l.spare <- leaf:
	default: // another run was quicker
		leaf.Remove()
	}
}

// emptied: no process is left in the run's cgroup. Its end is news from now on.
func (l *Local) emptied(r *run) {
	if r.leaf == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left[r.id] = r.leaf
}

// removeLeaf removes the cgroup, if it had one, of a run that is off the list. It does not
// wait for that.
func (l *Local) removeLeaf(id ID) {
	l.mu.Lock()
	leaf := l.left[id]
	delete(l.left, id)
	l.mu.Unlock()
	if leaf == nil {
		return
	}
	l.wg.Go(func() {
		if err := leaf.Remove(); err != nil {
			l.log.Warn("cgroup stays", slog.String("run", id.String()), slog.Any("err", err))
		}
	})
}

// removeLeaves removes all that nobody is in.
func (l *Local) removeLeaves() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, leaf := range l.left {
		leaf.Remove()
		delete(l.left, id)
	}
	select {
	case leaf := <-l.spare:
		leaf.Remove()
	default:
	}
}
