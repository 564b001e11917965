package keeper

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// signal sends sig to the main process, SIGKILL to all of the run. Before there
// is a process it is kept for it.
func (r *run) signal(sig unix.Signal) error {
	r.mu.Lock()
	main, leaf, ending := r.main, r.leaf, r.ending
	if main == nil {
		r.early = sig
	}
	r.mu.Unlock()
	switch {
	case main == nil || ending:
		return nil
	case sig == unix.SIGKILL && leaf != nil:
		r.countLeaf(main.Pid)
		if err := leaf.Kill(); err != nil && !errors.Is(err, os.ErrNotExist) { // it has just ended by itself
			r.l.log.Warn("kill", slog.String("run", r.id.String()), slog.Any("err", err))
		}
		return main.Signal(sig) // also if it has moved to another cgroup
	case sig == unix.SIGKILL:
		r.killTree(main)
		return nil
	}
	if err := main.Signal(sig); err != nil {
		return fmt.Errorf("%s: signal %d: %w", r.id, sig, err)
	}
	if waitsBehindStop(sig) {
		return main.Signal(unix.SIGCONT) // also to one that runs: a SIGSTOP may be on its way
	}
	return nil
}

// killTree kills all of the run without a cgroup. It takes a look at all processes,
// and so does not keep the caller waiting.
func (r *run) killTree(main *sys.Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ending {
		return
	}
	r.others.Go(func() {
		if err := r.l.sweeper.KillAll(r.marks(main), main, r.count); err != nil {
			r.l.log.Warn("kill", slog.String("run", r.id.String()), slog.Any("err", err))
		}
	})
}

// waitsBehindStop tells whether sig does nothing to a stopped process until it continues.
func waitsBehindStop(sig unix.Signal) bool {
	switch sig {
	case unix.SIGCONT, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, 0:
		return false
	}
	return true
}

// setMain takes pid, if it is a living process of this run, for its main process.
// A pidfd is opened first: what is then found out is true of the process it means.
func (r *run) setMain(pid int) error {
	if pid <= 1 || pid == os.Getpid() {
		return fmt.Errorf("%s: process %d cannot be a main process", r.id, pid)
	}
	p, err := sys.Open(pid)
	if err != nil {
		return fmt.Errorf("%s: %w", r.id, err)
	}
	if !p.Pinned() {
		return fmt.Errorf("%s: process %d: another main process needs pidfd (Linux 5.4)", r.id, pid)
	}
	former := r.current()
	if former != nil && former.Pid == pid {
		p.Close()
		return nil
	}
	ours := former != nil && r.has(former, pid)
	if !ours || !r.l.orphans.Adopt(p, p.Alive) {
		p.Close()
		return fmt.Errorf("%s: process %d is no living process of this run", r.id, pid)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone || r.ending || r.main != former {
		r.l.orphans.Abandon(p)
		return fmt.Errorf("%s: has ended or got another main process meanwhile", r.id)
	}
	r.main = p
	r.l.journal.born(r.id, p.Identity())
	former.CallOff()
	return nil
}

func (r *run) has(main *sys.Process, pid int) bool {
	if r.leaf != nil {
		return r.leaf.Has(pid)
	}
	return r.l.sweeper.Has(r.marks(main), pid)
}
