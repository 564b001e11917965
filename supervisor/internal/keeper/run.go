package keeper

import (
	"errors"
	"log/slog"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// A run is one listed process and what has come of it, until nothing is left.
type run struct {
	l    *Local
	id   ID
	mark string

	foreign bool // not our child: a keeper before us started it

	mu     sync.Mutex
	main   *sys.Process // nil before fork
	leaf   *sys.Leaf    // nil without cgroup
	early  unix.Signal  // the last signal asked for before there was a process
	ending bool         // main has ended, the rest is being killed
	buried bool         // main has been reaped
	gone   bool         // the keeper has been closed
	killed map[int]bool // other processes of the run that had to be killed

	formers []*sys.Process // main processes before MAINPID= named another
	others  sync.WaitGroup // goroutines beside that of live; none begins after ending
}

// born calls fork, unless the run is not wanted any more, and takes the child in.
func (r *run) born(fork func() (*sys.Starting, *sys.Leaf, error)) (*sys.Starting, error) {
	r.mu.Lock()
	early := r.early
	r.mu.Unlock()
	if early == unix.SIGKILL {
		return nil, &sys.Failure{Stage: "fork", Text: "killed before it was started", Errno: unix.ECANCELED}
	}
	s, leaf, err := fork()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.main, r.leaf = s.Process, leaf
	early = r.early
	if r.gone {
		s.Process.Close()
	}
	r.mu.Unlock()
	r.l.Born(r.id, s.Pid)
	r.l.journal.born(r.id, s.Identity())
	if early != 0 {
		r.signal(early)
	}
	return s, nil
}

// live follows the run from birth to the end and posts its news. It has been let in
// through the gate, and leaves when the exec is known.
func (r *run) live(s *sys.Starting, err error) {
	if err != nil {
		r.l.Post(failed(r.id, err))
		r.l.gate.leave()
		return
	}
	failure := s.Execed()
	if failure == nil {
		r.l.Post(Event{ID: r.id, Kind: Execed, Pid: s.Pid})
		runtime.Gosched() // the news goes first
		r.l.makeSpare()
		r.l.gate.leave()
		r.follow(s.Process)
		return
	}
	defer r.l.gate.leave()
	s.Signal(unix.SIGKILL) // it is about to die in any case
	main := r.wait(s.Process)
	if r.abandoned() {
		return
	}
	r.finish(main)
	r.bury(main)
	main.Close()
	r.l.emptied(r)
	r.l.Post(failed(r.id, failure))
}

// follow waits for the end of a run that is running, and posts it.
func (r *run) follow(main *sys.Process) {
	main = r.wait(main)
	if r.abandoned() {
		return
	}
	status, err := r.finish(main)
	r.l.gate.enter()
	defer r.l.gate.leave()
	r.bury(main)
	ev := Event{ID: r.id, Kind: Exited, Pid: main.Pid, Code: status.Code, Signal: status.Signal, Core: status.Core, Killed: r.howMany()}
	if err != nil {
		ev.Code, ev.Err = -1, err.Error()
	}
	r.l.emptied(r)
	r.l.Post(ev)
	runtime.Gosched() // the news goes first
	main.Close()
}

func failed(id ID, err error) Event {
	ev := Event{ID: id, Kind: SpawnFailed, Stage: "fork", Err: err.Error()}
	if f := (*sys.Failure)(nil); errors.As(err, &f) {
		ev.Stage, ev.Err = f.Stage, f.Why()
	}
	return ev
}

// wait returns when the main process has ended, whichever that is by then. It is
// still a zombie.
func (r *run) wait(main *sys.Process) *sys.Process {
	for {
		main.WaitDead()
		next := r.next(main)
		if next == main {
			return main
		}
		main = next
	}
}

// next is the process to wait for after former. The same one means that the run
// is ending: from here on nobody can name another main process. The exit of a
// former one is an orphan's, but an orphan that nobody else may reap.
func (r *run) next(former *sys.Process) *sys.Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.main == former || r.gone {
		r.ending = true
		return former
	}
	r.formers = append(r.formers, former)
	r.others.Go(func() {
		former.WaitDead()
		r.l.orphans.Reap(former)
	})
	return r.main
}

func (r *run) current() *sys.Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.main
}

// finish kills what is left of the run. Its main process is reaped only after that:
// until then nobody else can have its pid, by which leftovers are known. What the
// kernel holds delays this run's end and nothing else.
//
// Its status is asked for after that: if it was not our child, its parent may have
// been one of those killed, and only now it has come to us, or to one who reaps it.
func (r *run) finish(main *sys.Process) (status sys.Status, err error) {
	if r.leaf != nil {
		err = r.killLeaf(main.Pid)
	} else {
		err = r.l.sweeper.KillRest(r.marks(main), r.count)
	}
	if err != nil {
		r.l.log.Warn("leftovers", slog.String("run", r.id.String()), slog.Any("err", err))
	}
	for _, former := range r.formers {
		if former.Alive() { // it has slipped out of what ties a run together
			r.count(former.Pid)
			former.Signal(unix.SIGKILL)
		}
	}
	r.others.Wait()
	return main.Wait()
}

// bury reaps the main process, whose status is known by now. Its handle stays open.
func (r *run) bury(main *sys.Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buried = true
	r.l.orphans.Strike(main)
}

func (r *run) killLeaf(main int) error {
	if empty, err := r.leaf.Empty(); empty || err != nil {
		return err
	}
	r.countLeaf(main)
	return r.leaf.KillAll()
}

// countLeaf notes who is about to be killed besides main.
func (r *run) countLeaf(main int) {
	pids, _ := r.leaf.Procs()
	for _, pid := range pids {
		if pid != main {
			r.count(pid)
		}
	}
}

func (r *run) count(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.killed == nil {
		r.killed = map[int]bool{}
	}
	r.killed[pid] = true
}

// howMany had to be killed. Somebody who wants the end may still be counting.
func (r *run) howMany() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.killed)
}

func (r *run) marks(main *sys.Process) sys.Mark {
	return sys.Mark{Main: main.Pid, Env: r.mark, Foreign: r.foreign}
}

// abandon lets go of the process without touching it.
func (r *run) abandon() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	if r.main != nil {
		r.main.Close()
	}
	for _, former := range r.formers {
		former.Close()
	}
}

func (r *run) abandoned() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gone
}
