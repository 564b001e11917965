package keeper

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// Options of a Local. The zero value is right for a program that embeds the supervisor.
type Options struct {
	// Reap makes this process a subreaper and reaps every orphan that comes to it.
	// Only for a program without children of its own.
	Reap bool
	// NoCgroup does without cgroups even where they are to be had.
	NoCgroup bool
	// Score is what services are for the OOM killer (sys.SpareKeeper); "": as this process.
	Score string
	// Forgetful keeps no saved state: the supervisor is in this process and ends with
	// it, so that nobody could ask for it.
	Forgetful bool
	// Out takes sockd's own log as supervisors write it; nil: nobody does. It must not wait.
	Out io.Writer
	// Store hears of what is held under a name, and, with -1, of what is so no more:
	// it may keep a duplicate elsewhere. Nil: nobody does.
	Store func(name string, fd int)
	// Log hears of what is not as it should be; nil: nobody does.
	Log *slog.Logger
}

// atOnce is how many forks may be under way. The kernel does one after the other
// in any case; more at once only makes each of them slower.
const atOnce = 4

// Local is a Keeper in this process.
type Local struct {
	*Ledger
	forgetful bool
	score     string
	log       *slog.Logger
	out       io.Writer    // never nil
	orphans   *sys.Orphans // nil: not ours to reap
	cgroup    *sys.Cgroup  // nil: process trees are found by looking around
	sweeper   sys.Sweeper
	slots     chan struct{}
	spare     chan *sys.Leaf // a cgroup made ahead of time, after each start
	gate      gate           // shut while this process hands itself over
	journal   *journal
	store     func(name string, fd int) // nil: nobody

	mu   sync.Mutex
	runs map[ID]*run      // those with a process, or about to have one
	left map[ID]*sys.Leaf // cgroups of runs that have ended
	wg   sync.WaitGroup
}

// NewLocal makes a keeper that holds nothing yet.
func NewLocal(o Options) (*Local, error) {
	l, err := newLocal(o)
	if err != nil {
		return nil, err
	}
	if !o.NoCgroup {
		var err error
		if l.cgroup, err = sys.OpenCgroup(); err != nil {
			l.log.Info("no cgroups", slog.Any("err", err))
		}
	}
	l.Ledger = NewLedger()
	return l, nil
}

// newLocal makes one without a ledger. Children there are already are known to it.
func newLocal(o Options, children ...int) (*Local, error) {
	l := &Local{log: o.Log, out: o.Out, forgetful: o.Forgetful, score: o.Score, slots: make(chan struct{}, atOnce), spare: make(chan *sys.Leaf, 1), runs: map[ID]*run{}, left: map[ID]*sys.Leaf{}}
	if l.out == nil {
		l.out = io.Discard
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	l.journal = newJournal(l.log)
	l.store = o.Store
	if o.Reap {
		if err := sys.Subreaper(); err != nil {
			return nil, fmt.Errorf("keeper: subreaper: %w", err)
		}
		l.orphans = sys.NewOrphans(children...)
		l.sweeper.Orphans = l.orphans
	}
	return l, nil
}

// Spawn implements Keeper.
func (l *Local) Spawn(id ID, p Process) error {
	if len(p.Argv) == 0 {
		return fmt.Errorf("%s: no program", id)
	}
	output := -1
	if p.Output >= 0 {
		var err error
		if output, err = unix.FcntlInt(uintptr(p.Output), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			return fmt.Errorf("%s: output: %w", id, err)
		}
	}
	l.gate.enter() // until exec
	fds, giveBack, err := l.List(id, p.Sockets)
	if err != nil {
		l.gate.leave()
		closeIf(output)
		return err
	}
	r := &run{l: l, id: id, mark: mark(p.Env)}
	l.mu.Lock()
	l.runs[id] = r
	l.mu.Unlock()
	l.wg.Go(func() {
		defer l.forget(r)
		starting, err := l.fork(r, p, fds, output)
		closeIf(output)
		giveBack()
		r.live(starting, err)
	})
	runtime.Gosched() // the start goes first, and then what else the caller has to do
	return nil
}

// Save implements Keeper.
func (l *Local) Save(unit string, state []byte) error {
	if l.forgetful {
		return nil
	}
	return l.Ledger.Save(unit, state)
}

// mark picks the variable by which the processes of a run are known.
func mark(env []string) string {
	i := slices.IndexFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "NOTIFY_SOCKET=") })
	if i < 0 {
		return ""
	}
	return env[i]
}

// forget lets go of r. Its name may be another's by now.
func (l *Local) forget(r *run) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.runs[r.id] == r {
		delete(l.runs, r.id)
	}
}

func (l *Local) find(id ID) *run {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.runs[id]
}

// fork starts the trampoline, when its turn has come. Afterwards the child stands
// in nobody's way, however long it takes to exec.
func (l *Local) fork(r *run, p Process, fds []int, output int) (*sys.Starting, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, ErrClosed
	}
	defer func() { <-l.slots }()
	spec := sys.Spec{Files: fds, Output: output}
	spec.Argv, spec.Env, spec.PidEnv, spec.PidfdEnv = p.Argv, p.Env, p.PidEnv, p.PidfdEnv
	spec.Dir, spec.Umask, spec.Credential, spec.CPU = p.Dir, p.Umask, (*sys.Credential)(p.Credential), p.CPU
	spec.Score = l.score
	if l.cgroup != nil {
		leaf, err := l.takeLeaf()
		if err != nil {
			l.log.Warn("no cgroup", slog.String("run", r.id.String()), slog.Any("err", err))
		}
		spec.Leaf = leaf
	}
	l.note(r, p, fds, output, spec.Leaf)
	return r.born(func() (*sys.Starting, *sys.Leaf, error) {
		s, err := l.orphans.Fork(func() (*sys.Starting, error) { return sys.Start(&spec) })
		if err != nil && spec.Leaf != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOMEM) {
			// clone3 may be forbidden where mkdir is not (container filters, delegation).
			spec.Leaf.Remove()
			spec.Leaf = nil
			var again error
			if s, again = l.orphans.Fork(func() (*sys.Starting, error) { return sys.Start(&spec) }); again == nil {
				l.log.Warn("not born in a cgroup", slog.String("run", r.id.String()), slog.Any("err", err))
			}
			err = again
		}
		if spec.Leaf != nil {
			spec.Leaf.Born()
			if err != nil {
				spec.Leaf.Remove()
				spec.Leaf = nil
			}
		}
		return s, spec.Leaf, err
	})
}

// Signal implements Keeper.
func (l *Local) Signal(id ID, sig unix.Signal) error {
	if !l.Signalled(id, sig) {
		return nil
	}
	if r := l.find(id); r != nil {
		return r.signal(sig)
	}
	return nil
}

// SetMain implements Keeper.
func (l *Local) SetMain(id ID, pid int) error {
	r := l.find(id)
	if r == nil {
		return fmt.Errorf("%s: is not running", id)
	}
	return r.setMain(pid)
}

// closePatience bounds Close: a run whose leftovers the kernel holds does not let go.
const closePatience = time.Second

// Close implements Keeper. It returns when everything that waited for a process
// has let go of it.
func (l *Local) Close() error {
	err := l.Ledger.Close()
	l.journal.close()
	l.orphans.Close()
	l.mu.Lock()
	for _, r := range l.runs {
		r.abandon()
	}
	l.mu.Unlock()
	let := make(chan struct{})
	go func() {
		l.wg.Wait()
		close(let)
	}()
	select {
	case <-let:
	case <-time.After(closePatience):
	}
	if l.cgroup != nil {
		l.removeLeaves()
		l.cgroup.Close()
	}
	return err
}

func closeIf(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}
