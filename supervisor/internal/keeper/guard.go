package keeper

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// Duty says how a keeper starts its supervisor and when it loses patience with it.
type Duty struct {
	Argv []string // of the supervisor, which is this very program in another role
	Env  []string // complete; the guard adds FDVariable and, in need, SafeVariable
	Log  *slog.Logger

	// Outer says something to the manager that has started the keeper, in the words
	// of sd_notify(3): it listens to the keeper's process only. Nil: there is none.
	Outer func(text string)

	// Drain returns when what was logged has been written, or cannot be. Nil: it is.
	Drain func()

	// Watchdog is how long a supervisor may leave news without an acknowledgement
	// before it is killed. Default 10s.
	Watchdog time.Duration
	// Stopped is how long it may be stopped (SIGSTOP) before it is killed: it answers
	// nobody meanwhile. Default 500ms.
	Stopped time.Duration
	// Delay is the wait before a supervisor is started again that died within Steady
	// of its start; it doubles up to DelayMax. Defaults 10ms, 10s and 10s.
	Delay, DelayMax, Steady time.Duration
	// SafeAfter is how many such deaths in a row it takes until the next one is
	// started in safe mode. Default 8.
	SafeAfter int
	// Trial is how long a new file's supervisor may take until it serves. Default 30s.
	Trial time.Duration
	// Grace is how long processes have to leave when the keeper has to end them by
	// itself. Default 10s.
	Grace time.Duration
}

const (
	// FDVariable names the descriptor on which a supervisor finds its keeper.
	FDVariable = "SOCKD_KEEPER_FD"
	// SafeVariable says why a supervisor is to do nothing but answer.
	SafeVariable = "SOCKD_SAFE_MODE"
	// SpillVariable says that it is to throw away what services write: supervisors in
	// safe mode have died too, and it may have been that.
	SpillVariable = "SOCKD_SAFE_SPILL"
	// keeperFD is that descriptor: the first after the standard ones.
	keeperFD = 3
)

// own is the program that runs, also when its file has been replaced.
const own = "/proc/self/exe"

// spillAfter is how many supervisors in a row die in safe mode, each soon after its start,
// until the next one does without the output of services.
const spillAfter = 3

// A guard keeps a supervisor running. It decides nothing else.
type guard struct {
	Duty
	local   *Local
	signals chan os.Signal // for sockd
	hints   chan os.Signal // SIGCHLD, and SIGPIPE, which need not be heard: never more than one waits
	trial   *trial         // of an upgrade; nil: own is started
	outcome Outcome        // of the last upgrade
	told    *session
	early   int    // deaths in a row soon after the start
	failed  int    // starts in a row that have come to nothing, which is no fault of a supervisor's
	reason  string // of the last death
	waiting []unix.Signal
	ending  bool
	safe    bool // the supervisor that is there was started in safe mode
	least   int  // of early, however long it lives
}

// Guard keeps a supervisor running over l until one says that all is done, and
// returns the exit code it gave. Signals that are for sockd are passed on.
func Guard(l *Local, d Duty) (code int, err error) {
	g := newGuard(l, d)
	g.listen()
	return g.keep(g.supervise)
}

func newGuard(l *Local, d Duty) *guard {
	g := &guard{Duty: d, local: l, signals: make(chan os.Signal, 16), hints: make(chan os.Signal, 1)}
	g.defaults()
	return g
}

// listen hears of signals from now on. What may come often has a channel of its own: while
// we are at something else, it would take all the room that there is for an order.
func (g *guard) listen() {
	signal.Notify(g.signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	signal.Notify(g.hints, unix.SIGCHLD, unix.SIGPIPE)
	if os.Getpid() == 1 {
		// The kernel spares a process 1 that has no handler; Go's runtime has handlers, which
		// end the process, and with it the container and every socket.
		signal.Ignore(unix.SIGQUIT, unix.SIGTRAP, unix.SIGABRT, unix.SIGSTKFLT, unix.SIGSYS)
	}
}

// deafen ends that.
func (g *guard) deafen() {
	signal.Stop(g.signals)
	signal.Stop(g.hints)
}

// keep sees the first supervisor to its end, and others after it until one is done.
func (g *guard) keep(first func() (code int, done bool, err error)) (code int, err error) {
	defer g.deafen()
	for next := first; ; next = g.supervise {
		code, done, err := next()
		if done {
			g.endAll()
			return code, nil
		}
		if err != nil {
			g.Log.Error("supervisor not started", slog.Any("err", err))
		}
		if g.tries() >= g.SafeAfter-1 && g.holdsNothing() { // there is nothing to go on for
			return 1, fmt.Errorf("no supervisor stays: %s", g.reason)
		}
		if g.ending && g.tries() > 2 { // nobody is left to stop the services in good order
			g.endAll()
			return 1, err
		}
		g.wait()
	}
}

// holdsNothing tells whether no supervisor has come as far as to hold anything.
func (g *guard) holdsNothing() bool {
	inv, err := g.local.Inventory()
	return err == nil && len(inv.Descriptors) == 0 && len(inv.Children) == 0 && len(inv.States) == 0
}

func (g *guard) defaults() {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	set(&g.Watchdog, 10*time.Second)
	set(&g.Stopped, 500*time.Millisecond)
	set(&g.Delay, 10*time.Millisecond)
	set(&g.DelayMax, 10*time.Second)
	set(&g.Steady, 10*time.Second)
	set(&g.Grace, 10*time.Second)
	set(&g.Trial, 30*time.Second)
	if g.SafeAfter == 0 {
		g.SafeAfter = 8
	}
	if g.Log == nil {
		g.Log = slog.New(slog.DiscardHandler)
	}
}

// supervise runs one supervisor from start to end. It is done when that has said
// bye; else another one is needed.
func (g *guard) supervise() (code int, done bool, err error) {
	p, w, err := g.start()
	if err != nil {
		if g.failed++; g.early < g.SafeAfter { // else that is why there is safe mode
			g.reason = err.Error()
		}
		g.tried()
		return 0, false, err
	}
	g.failed = 0
	return g.stay(talk(g.local, w, g.Log, g.Outer), p)
}

// stay is with a supervisor until its end.
func (g *guard) stay(s *session, p *sys.Process) (code int, done bool, err error) {
	begun := time.Now()
	defer func() {
		if time.Since(begun) > g.Steady { // that shows nothing for those who do more than it did
			g.early = min(g.early, g.least)
		}
		g.early++
		if g.safe && s.again.Load() {
			g.early = 0
		}
		g.tried()
	}()
	exit := make(chan string, 1)
	go func() {
		st, _ := p.Wait()
		g.local.orphans.Reap(p)
		exit <- describe(st)
	}()
	g.attend(s, p, exit)
	s.hearOut()
	g.written(s)
	if bye := s.bye.Load(); bye != 0 && (!g.onTrial() || g.ending) {
		return int(bye &^ saidBye), true, nil
	} // on trial it has no say: whatever it could not do, the one before could
	select {
	case t := <-s.handed:
		g.accept(t)
	default:
	}
	if g.trial != nil && g.trial.starts == 0 {
		g.Log.Info("supervisor replaced", slog.Int("pid", p.Pid))
		return 0, false, nil
	}
	g.Log.Warn("supervisor ended", slog.Int("pid", p.Pid), slog.String("because", g.reason), slog.Int("again", g.early+1))
	return 0, false, nil
}

// start forks a supervisor with its end of the socketpair.
func (g *guard) start() (*sys.Process, *wire, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	defer unix.Close(pair[1])
	w, err := newWire(pair[0])
	if err != nil {
		unix.Close(pair[0])
		return nil, nil, err
	}
	env := append(append([]string{}, g.Env...), fmt.Sprintf("%s=%d", FDVariable, keeperFD))
	g.safe, g.least = g.early >= g.SafeAfter, 0
	if g.safe {
		env, g.least = append(env, SafeVariable+"="+g.reason), g.SafeAfter-1
	}
	if g.early >= g.SafeAfter+spillAfter {
		env, g.least = append(env, SpillVariable+"=1"), g.SafeAfter+spillAfter-1
	}
	program := own
	if g.trial != nil {
		g.trial.starts++
		fd, err := aside(g.trial.file, pair[1])
		if err != nil {
			w.close()
			return nil, nil, err
		}
		defer unix.Close(fd)
		program = descriptorPath(fd)
	}
	child, err := g.local.orphans.Fork(func() (*sys.Starting, error) {
		return sys.StartSelf(program, g.Argv, env, []int{pair[1]})
	})
	if err != nil {
		w.close()
		return nil, nil, err
	}
	return child.Process, w, nil
}

// take notes a signal that is for sockd. Of each kind two are enough to wait for a
// supervisor: one may be on its way, and a second SIGINT kills.
func (g *guard) take(sig os.Signal) {
	n := sig.(unix.Signal)
	if ends(n) {
		g.ending = true
	}
	same := 0
	for _, w := range g.waiting {
		if w == n {
			same++
		}
	}
	if same < 2 {
		g.waiting = append(g.waiting, n)
	}
}

// tries is how often in a row it has been tried in vain to have a supervisor that stays.
// Starts that came to nothing are no reason for safe mode, and count to just below it.
func (g *guard) tries() int { return max(g.early, min(g.early+g.failed, g.SafeAfter-1)) }

// delay is how long the next supervisor waits for its start.
func (g *guard) delay() time.Duration {
	doubled := g.tries() - 1
	if doubled < 1 {
		return 0
	}
	if doubled >= g.SafeAfter { // services may wait for somebody who takes their output
		doubled = max(doubled-spillAfter, g.SafeAfter-1)
	}
	return min(g.Delay<<min(doubled, 20), g.DelayMax)
}

// wait lets the delay pass before the next supervisor is started. Who wants sockd to end
// does not wait for it.
func (g *guard) wait() {
	delay := g.delay()
	if delay == 0 {
		return
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return
		case sig := <-g.signals:
			if g.take(sig); ends(sig.(unix.Signal)) {
				return
			}
		}
	}
}

func describe(st sys.Status) string {
	if st.Signal != 0 {
		return "killed by " + sys.SignalName(unix.Signal(st.Signal))
	}
	return fmt.Sprintf("exit status %d", st.Code)
}
