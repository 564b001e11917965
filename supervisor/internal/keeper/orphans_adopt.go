package keeper

import (
	"fmt"
	"os"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// Adopt implements Keeper: it lists a run that a keeper before this one has started,
// and follows it. The process is not our child; its exit status comes from the
// kernel where that keeps one for others (Linux 6.15).
func (l *Local) Adopt(s Survivor) error {
	p := s.Find()
	if p == nil {
		return fmt.Errorf("%s: its process has ended", s.ID)
	}
	if !p.Pinned() {
		p.Close()
		return fmt.Errorf("%s: process %d: it takes pidfd (Linux 5.4) to adopt it", s.ID, p.Pid)
	}
	if err := l.Ledger.adopt(s.ID, p.Pid); err != nil {
		p.Close()
		return err
	}
	s.Process = p.Identity()
	l.journal.begin(s)
	r := &run{l: l, id: s.ID, mark: s.Mark, foreign: true, main: p, leaf: s.leaf()}
	l.begin(r)
	return nil
}

// leaf is the cgroup of the run; nil if it has none any more.
func (s *Survivor) leaf() *sys.Leaf {
	leaf := s.Leaf.Open()
	if leaf != nil {
		if st, err := os.Stat(s.Leaf.Dir); err != nil || !st.IsDir() || !leaf.Has(s.Process.Pid) {
			return nil
		}
	}
	return leaf
}

// adopt lists a run that is running.
func (l *Ledger) adopt(id ID, pid int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	if l.runs[id] != nil {
		return fmt.Errorf("%s: is listed already", id)
	}
	l.runs[id] = &Child{ID: id, Pid: pid, Running: true}
	return nil
}

// Hold implements Keeper. The runtime folder, once held, is where the record is kept.
func (l *Local) Hold(name string, fd int) error {
	if err := l.Ledger.Hold(name, fd); err != nil {
		return err
	}
	if name == RecordHeld {
		l.journal.open(fd)
	}
	if l.store != nil {
		l.store(name, fd)
	}
	return nil
}

// Release implements Keeper.
func (l *Local) Release(name string) error {
	if name == RecordHeld {
		l.journal.close()
	}
	if l.store != nil {
		l.store(name, -1)
	}
	return l.Ledger.Release(name)
}

// Acknowledge implements Keeper. The record, too, has a run until then: of a dead one
// that it still has, whoever reads it finds nothing.
func (l *Local) Acknowledge(ev Event) error {
	if l.strike(ev) {
		l.journal.end(ev.ID)
		l.removeLeaf(ev.ID)
	}
	return nil
}

// note puts a run that is about to be started into the record.
func (l *Local) note(r *run, p Process, fds []int, output int, leaf *sys.Leaf) {
	s := Survivor{ID: r.id, Mark: r.mark, Leaf: leaf.Saved()}
	if output >= 0 {
		s.Output, _ = sys.Inode(output)
	}
	for i, name := range p.Sockets {
		cookie, _ := sys.Cookie(fds[i])
		s.Sockets = append(s.Sockets, HeldSocket{name, cookie})
	}
	l.journal.begin(s)
}
