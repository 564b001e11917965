package keeper

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// A keeper is replaced by executing the new file in its own place: the process stays,
// and with it its children, its descriptors and the talk with its supervisor. What
// it knows goes into a sealed memfd, whose number the new image finds in its
// environment. If the new image cannot make sense of it, it executes the file before.

const (
	// HandoverVariable names the descriptor with what the image before has left.
	HandoverVariable = "SOCKD_HANDOVER_FD"
	// reasonVariable says why the image after us has handed back.
	reasonVariable = "SOCKD_HANDED_BACK"
)

// gatePatience is how long runs between fork and exec may keep a hand-over waiting.
const gatePatience = 2 * time.Second

// passedOn are the signals that must not be lost while there is no handler.
var passedOn = []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP}

// handOver executes file in this process's place. It returns only if that is not
// possible, and then everything is as it was. The caller sees to it that nobody
// reads or writes the session's wire.
func (g *guard) handOver(s *session, p *sys.Process, file int) error {
	if !g.local.gate.close(gatePatience) {
		return fmt.Errorf("a service has been between fork and exec for %v", gatePatience)
	}
	defer g.local.gate.open()
	g.local.removeLeaves() // the next image does not know of them
	if g.Drain != nil {    // what waits to be written would end with this image
		g.Drain()
	}
	defer g.local.expose()()
	runtime.LockOSThread() // exec leaves this thread, with its signal mask
	defer runtime.UnlockOSThread()
	all, release := sys.HoldSignals(passedOn...)
	defer release()
	if all { // what comes from now on waits for the next image; what came before is taken
		signal.Stop(g.signals) // not of SIGPIPE: the log may have no reader
		defer g.listen()
	}
	g.hush()

	before, err := unix.Open(own, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", own, err)
	}
	defer unix.Close(before)
	h := g.local.handover()
	h.Guard = savedGuard{
		Supervisor: savedProcess{p.Pid, p.Handle()}, Wire: s.wire.number(), Hello: s.hello.Load(),
		Ending: g.ending, Outcome: g.outcome, File: file, Before: before, Argv: g.Argv,
	}
	for _, sig := range g.waiting {
		h.Guard.Waiting = append(h.Guard.Waiting, int(sig))
	}
	if err := h.check(); err != nil {
		return fmt.Errorf("what there is to hand over: %w", err)
	}
	state, err := h.write()
	if err != nil {
		return err
	}
	defer unix.Close(state)
	fds := append(h.descriptors(), state)
	defer sys.KeepOpen(fds, false)
	if err := sys.KeepOpen(fds, true); err != nil {
		return fmt.Errorf("descriptors: %w", err)
	}
	env := append(slices.Clone(g.Env), HandoverVariable+"="+strconv.Itoa(state))
	return fmt.Errorf("exec: %w", syscall.Exec(descriptorPath(file), g.Argv, env))
}

// expose has the next image find the score for the OOM killer as this one has found it.
func (l *Local) expose() (takeBack func()) {
	if l.score == "" || sys.SetScore(l.score) != nil {
		return func() {}
	}
	return func() { sys.SpareKeeper() }
}

// hush takes the signals that have come so far.
func (g *guard) hush() {
	for {
		select {
		case sig := <-g.signals:
			g.take(sig)
		default:
			return
		}
	}
}

// descriptorPath is the name under which a descriptor of ours can be executed.
func descriptorPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// handover is all that a keeper knows while its gate is shut.
func (l *Local) handover() *handover {
	h := &handover{Version: StateVersion, Pid: os.Getpid(), Held: map[string]int{}, Cgroup: l.cgroup.Saved()}
	l.Ledger.mu.Lock()
	defer l.Ledger.mu.Unlock()
	for name, d := range l.held {
		h.Held[name] = d.fd
	}
	h.States = l.states
	for _, c := range l.Ledger.runs {
		h.Children = append(h.Children, *c)
	}
	h.Record, h.LastGen = slices.Collect(maps.Values(l.journal.live)), l.journal.lastGen
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.runs {
		if saved, ok := r.saved(); ok {
			h.Runs = append(h.Runs, saved)
		}
	}
	return h
}

// saved is the run as plain data; not ok if it has been buried.
func (r *run) saved() (savedRun, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.main == nil || r.buried {
		return savedRun{}, false
	}
	s := savedRun{ID: r.id, Main: savedProcess{r.main.Pid, r.main.Handle()}, Mark: r.mark, Leaf: r.leaf.Saved(),
		Killed: slices.Sorted(maps.Keys(r.killed)), Foreign: r.foreign}
	for _, f := range r.formers {
		if handle := f.Handle(); handle >= 0 { // else it has been reaped
			s.Formers = append(s.Formers, savedProcess{f.Pid, handle})
		}
	}
	return s, true
}

// Resuming says whether this process has taken the place of a keeper, and Resume is
// to be called.
func Resuming() bool { return os.Getenv(HandoverVariable) != "" }

// Environ is the environment without what is meant for Resume.
func Environ() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, HandoverVariable+"=") || strings.HasPrefix(kv, reasonVariable+"=")
	})
}

// Resume goes on where the image before has left off, and then does as Guard. It
// returns an error only if there is nothing to go back to.
func Resume(o Options, d Duty) (code int, err error) {
	fd, err := strconv.Atoi(os.Getenv(HandoverVariable))
	if err != nil {
		return 1, fmt.Errorf("%s: %w", HandoverVariable, err)
	}
	reason := os.Getenv(reasonVariable)
	os.Unsetenv(HandoverVariable)
	os.Unsetenv(reasonVariable)
	h, err := readHandover(fd)
	var g *guard
	var s *session
	if err == nil {
		g, s, err = resume(o, d, h)
	}
	if err != nil {
		if o.Score != "" {
			sys.SetScore(o.Score)
		}
		return 1, handBack(fd, h, err)
	}
	unix.Close(fd)
	for _, fd := range []int{h.Guard.File, h.Guard.Before} {
		unix.Close(fd)
	}
	defer g.local.Close()
	return g.goOn(h, s, reason)
}

// HandBack executes the image before, which goes on as if nothing had been. It does
// nothing if Resume has been called, or if there was no hand-over.
func HandBack(because string) {
	if fd, err := strconv.Atoi(os.Getenv(HandoverVariable)); err == nil && os.Getenv(reasonVariable) == "" {
		h, _ := readHandover(fd)
		handBack(fd, h, errors.New(because))
	}
}

func handBack(fd int, h *handover, because error) error {
	if h == nil || h.Guard.Before < 3 || os.Getenv(reasonVariable) != "" {
		return fmt.Errorf("hand-over: %w", because)
	}
	sys.KeepOpen(append(h.descriptors(), fd), true)
	env := append(Environ(), HandoverVariable+"="+strconv.Itoa(fd), reasonVariable+"="+because.Error())
	return fmt.Errorf("hand-over: %w, and back: %w", because, syscall.Exec(descriptorPath(h.Guard.Before), h.Guard.Argv, env))
}

// resume rebuilds everything. Nothing is started yet but what waits for processes.
func resume(o Options, d Duty, h *handover) (g *guard, s *session, err error) {
	defer func() {
		if r := recover(); r != nil { // the image before is better than none
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	wire, err := newWire(h.Guard.Wire)
	if err != nil {
		return nil, nil, fmt.Errorf("wire: %w", err)
	}
	unix.CloseOnExec(h.Guard.Wire)
	l, err := h.local(o)
	if err != nil {
		return nil, nil, err
	}
	g = newGuard(l, d)
	g.outcome, g.ending = h.Guard.Outcome, h.Guard.Ending
	for _, sig := range h.Guard.Waiting {
		g.waiting = append(g.waiting, unix.Signal(sig))
	}
	s = newSession(l, wire, g.Log, g.Outer)
	s.hello.Store(h.Guard.Hello)
	return g, s, nil
}

// goOn takes up the talk with the supervisor that is there.
func (g *guard) goOn(h *handover, s *session, reason string) (code int, err error) {
	g.listen()
	g.local.resume(h)
	go s.serve()
	p := sys.Inherit(h.Guard.Supervisor.Pid, h.Guard.Supervisor.Handle)
	if reason == "" {
		g.settle(Done, "")
		g.Log.Info("keeper replaced", slog.Int("pid", os.Getpid()))
	} else {
		g.settle(RolledBack, "the new file could not take the keeper's place: "+reason)
		p.Signal(unix.SIGKILL) // the file that it came from does not work
	}
	return g.keep(func() (int, bool, error) { return g.stay(s, p) })
}
