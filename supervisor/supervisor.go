package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

// Config says what to supervise and how. Its zero value supervises nothing, with
// no control socket, and writes to standard output and the default logger.
type Config struct {
	// Units are supervised from the start. They must have come from units.Load or
	// units.Parse, which apply the defaults. Nil: what Load returns.
	Units *units.Set
	// Load reads the units at the start, where Units is nil, and again for Reload.
	// Nil: Reload is refused.
	Load func() (*units.Set, error)
	// Keeper holds sockets and processes, and goes on when this process ends: see
	// Keep and Attach. Nil: this process holds them.
	Keeper *Keeper
	// Build says what program this is, for those that are to take over from it.
	Build Build
	// Orphans says what becomes of services that live on though the keeper that started
	// them was killed, as the runtime folder's records tell: Adopt, the default, or End.
	Orphans string
	// RuntimeDir holds the control socket; it is made if missing, with mode 0700.
	// A second supervisor on the same folder is refused. Empty: no control socket.
	RuntimeDir string
	// Reap makes this process the one that orphans of services fall to, and reaps
	// them; it then also speaks with an outer manager, and takes the sockets that it
	// was passed. For a process that does nothing else, and for PID 1; a program that
	// embeds a supervisor and has other children, or sockets, leaves it off.
	Reap bool
	// Output takes the lines of services, each in one Write. Default os.Stdout.
	Output io.Writer
	// Format is how those lines look. Default Text.
	Format Format
	// Colour colours the instance's name in Text.
	Colour bool
	// Log takes one record for each transition. Default slog.Default().
	Log *slog.Logger

	keeper keeper.Keeper // tests and recovery: what to use instead of a new Local
	abrupt chan struct{} // tests: end at once, as if killed
}

// A Supervisor runs units. Make one with New.
type Supervisor struct {
	cfg    Config
	log    *slog.Logger
	keeper keeper.Keeper
	watch  *sys.Watcher
	logs   *logs
	events *eventLog

	units      map[string]*unit
	targets    map[uint64]target    // by watch key
	checks     map[keeper.ID]*check // commands of readiness gates that run
	lastKey    uint64
	agenda     agenda
	live       int    // run records in all units
	processes  int    // of these, runs whose end has not been heard of
	stale      bool   // units have come or gone since publishUnits
	follow     []news // events that performing has brought about, not yet handled
	untold     []Event
	outfit     *outfit  // for the next run; nil: none has been made
	unfinished []uint64 // logs of runs that have ended, to be read to their ends
	parting    []*unit  // that may have gone
	stopping   bool
	crashed    error       // it ends without any order: nothing is released or removed
	ended      *ExitError  // an essential unit has ended for good
	steerUntil time.Time   // until when opening a group may wait: see steerPatience
	dir        *runtimeDir // once it has begun
	unrecorded bool        // sockets have come or gone since record
	spill      *spill      // safe mode: throws output away; nil: it is carried
	paths      *pathWatch  // nil: nobody hears of paths that are removed
	left       []left      // udp sockets that are held for what waits in them
	lefts      int         // how many there have been
	leftsSoon  int         // how many have asked that it be sent on soon
	between    []*socket   // that no unit wants since a reload was cut short: it goes on with them
	passed     []int       // sockets that an outer manager gave us and nobody has taken

	requests chan request
	reloads  chan struct{} // has room for the one that is under way
	fired    chan []uint64 // watch keys
	gates    chan gateNews
	empty    chan emptied
	files    chan filesRead
	quit     chan struct{}
	view     atomic.Pointer[view]
	changes  bell // rung with each publication
	running  atomic.Bool
	started  chan struct{} // closed when every unit has been started
}

// A target is what a watch key stands for.
type target struct {
	unit   *unit
	socket *socket // a held socket has a caller
	run    *run    // a run has spoken on its notify socket
	stored *stored // what a service has stored has hung up
}

// A news is a machine event for a unit.
type news struct {
	unit  *unit
	event machine.Event
}

// A request is work for the loop, asked for by another goroutine.
type request struct {
	do   func() error
	done chan error
	safe bool // it is done in safe mode too
}

// An ExitError says that an essential unit has ended for good; Code is its exit
// code, or 128 and its signal, as shells have it.
type ExitError struct {
	Unit string
	Code int
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("essential unit %s has ended (exit code %d)", e.Unit, e.Code)
}

// New returns a supervisor that has done nothing yet.
func New(cfg Config) *Supervisor {
	if cfg.Output == nil {
		cfg.Output = os.Stdout
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Keeper != nil {
		cfg.keeper = cfg.Keeper.remote
	}
	return &Supervisor{
		cfg: cfg, log: cfg.Log, keeper: cfg.keeper,
		events: newEventLog(), units: map[string]*unit{}, targets: map[uint64]target{},
		requests: make(chan request), reloads: make(chan struct{}, 1), fired: make(chan []uint64), gates: make(chan gateNews), empty: make(chan emptied), files: make(chan filesRead), checks: map[keeper.ID]*check{}, quit: make(chan struct{}), started: make(chan struct{}),
	}
}

// Run binds every socket, starts what is to be started, and supervises until ctx
// ends, for a cause that the log gives (context.WithCancelCause); then it stops every
// unit within its stop timeout and removes what it made.
// It returns nil after that, an *ExitError when an essential unit has ended for
// good, and an error at once, having started nothing, when a socket cannot be
// bound or another supervisor has the runtime folder. It may be called once.
func (s *Supervisor) Run(ctx context.Context) (err error) {
	if !s.running.CompareAndSwap(false, true) {
		return errors.New("supervisor: Run was called before")
	}
	defer close(s.quit)
	if s.keeper == nil {
		if s.keeper, err = keeper.NewLocal(keeper.Options{Reap: s.cfg.Reap, Forgetful: true}); err != nil {
			return fmt.Errorf("keeper: %w", err)
		}
		defer s.keeper.Close()
	}
	inv, err := s.keeper.Inventory()
	_, followed := inv.States[followedState]
	giveBack := func() {}
	if s.cfg.Reap || s.cfg.Keeper != nil { // a process of our own
		giveBack = roomToBegin(followed)
	}
	if k := s.cfg.Keeper; k != nil {
		goesOn := followed || err != nil // also where nobody knows
		defer func() { k.goesOn.Store(goesOn && err != nil && !s.stopping && ctx.Err() == nil) }()
	}
	if err != nil {
		return fmt.Errorf("keeper: %w", err)
	}
	dir, err := s.openRuntimeDir(inv)
	if err != nil {
		return err
	}
	defer func() {
		if s.crashed == nil {
			dir.close(s.keeper)
		}
	}()
	if s.watch, err = sys.NewWatcher(); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	defer s.watch.Close()
	lines := &lineWriter{out: s.cfg.Output, format: s.cfg.Format, colour: s.cfg.Colour, now: time.Now}
	if s.logs, err = newLogs(lines, func(src source, rest []byte) { s.keepRest(src, rest); s.sendOff() }); err != nil {
		return fmt.Errorf("logs: %w", err)
	}
	defer func() {
		if s.logs.close() && s.crashed == nil {
			releaseOutbox(s.keeper)
		}
	}()
	control, err := s.begin(dir, inv)
	if err != nil {
		return err
	}
	s.dir = dir
	defer s.serveControl(dir, inv, control)()
	go s.forwardWatch()
	close(s.started)
	go giveBack()
	if s.safe() != "" {
		if err := s.answer(ctx); err != errReplaced {
			return err
		}
		return nil
	}
	defer s.keepPaths(inv)()
	s.outer("READY=1", fmt.Sprintf("STATUS=%d units", len(s.units)))
	if s.cfg.Keeper != nil {
		s.cfg.Keeper.remote.Serving()
	}
	s.prepareOutfit()
	defer func() { s.outfit.close() }()
	if err := s.loop(ctx); err != errReplaced {
		return err
	}
	return nil
}

// loop is the one goroutine that decides. It ends when everything has.
func (s *Supervisor) loop(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	done := ctx.Done()
	var gone <-chan struct{}
	if s.cfg.Keeper != nil {
		gone = s.cfg.Keeper.remote.Gone()
	}
	var late <-chan time.Time // when waiting for the output ends
	var progress int64        // of the output, when that began
	for {
		s.forgetGone()
		s.settleFollowing()
		if s.stopping && s.processes == 0 && late == nil {
			progress, late = s.logs.progress.Load(), outputLate()
		}
		if s.stopping && s.live == 0 {
			s.releaseAll()
			if s.ended != nil {
				return s.ended
			}
			return nil
		}
		if at, ok := s.agenda.first(); ok {
			timer.Reset(time.Duration(at - s.now()))
		} else {
			timer.Stop()
		}
		select {
		case ev := <-s.keeper.Events():
			s.hear(behind(ev, s.keeper.Events())...)
		case keys := <-s.fired:
			s.readable(keys)
		case key := <-s.logs.done:
			s.logDone(key)
		case n := <-s.gates:
			s.gatesSaid(behind(n, s.gates))
		case e := <-s.empty:
			s.areEmpty(behind(e, s.empty))
		case n := <-s.files:
			s.filesWereRead(n)
		case r := <-s.requests:
			r.done <- r.do()
			if s.crashed != nil {
				return s.crashed
			}
		case <-timer.C:
			s.hearWaiting()
			for _, u := range s.agenda.due(s.now()) {
				s.handle(u, machine.Tick{})
			}
		case <-done:
			done = nil
			s.stopAll(context.Cause(ctx).Error())
		case <-late:
			if late = nil; s.logs.progress.Load() == progress {
				s.log.Warn("output not written", "runs", s.live, "because", "nobody has taken it for "+outputPatience.String())
				s.live = 0
			}
		case <-gone:
			s.crashed = errKeeperGone
			return s.crashed
		case <-s.cfg.abrupt:
			s.crashed = errAbrupt
			return s.crashed
		}
	}
}

// outputPatience is how long a supervisor whose services have all ended waits for
// somebody to take more of the rest of their output. A slow reader gets it all.
const outputPatience = 5 * time.Second

// outputLate tells when that is over; a test has a clock of its own.
var outputLate = func() <-chan time.Time { return time.After(outputPatience) }

var errAbrupt = errors.New("ended abruptly")

// handle takes one event through the five steps, but for the acknowledgement,
// which is the caller's.
func (s *Supervisor) handle(u *unit, ev machine.Event) {
	s.carryOutAndTell(s.decide(u, len(s.untold), ev))
}

// commit saves what was decided, acts on it, and tells people.
func (s *Supervisor) commit(u *unit, actions []machine.Action) {
	s.carryOutAndTell(&decision{unit: u, actions: actions})
}

func (s *Supervisor) carryOutAndTell(d *decision) {
	s.carryOut(d.unit, d)
	s.untold = append(s.untold, d.told...)
	s.tellAll()
	s.ifEnded(d.unit)
}

// oversleep is how late a deadline may be met on a busy machine. Later than that, this
// process or the machine was stopped.
const oversleep = time.Second

// settleFollowing handles what performing has brought about, until nothing more.
func (s *Supervisor) settleFollowing() {
	for len(s.follow) > 0 {
		n := s.follow[0]
		s.follow = s.follow[1:]
		s.handle(n.unit, n.event)
	}
	s.follow = nil
	for _, key := range s.unfinished { // what matters to others has been done
		s.logs.finish(key)
	}
	s.unfinished = s.unfinished[:0]
	if s.stale {
		s.publishUnits()
	}
	if s.unrecorded && s.dir != nil {
		s.watchPaths()
		s.record(s.dir)
	}
	s.tellAll()
}

// stopAll wishes every unit down.
func (s *Supervisor) stopAll(because string) {
	if s.stopping {
		return
	}
	s.stopping = true
	s.saveEnding(because)
	s.log.Info("stopping", "because", because)
	s.outer("STOPPING=1")
	for _, u := range s.sorted() {
		s.follow = append(s.follow, news{u, machine.Stop{}})
	}
}

// Kill ends every process of every unit at once, for an operator who does not want
// to wait for the stop timeouts.
func (s *Supervisor) Kill() {
	s.askSafe(context.Background(), func() error {
		if s.safe() != "" { // the order to stop came before
			for _, u := range s.units {
				s.killSafe(u, "killed by the operator")
			}
			return nil
		}
		s.stopAll("killed by the operator")
		s.settleFollowing()
		for _, u := range s.units {
			for _, r := range u.runs {
				s.keeper.Signal(r.id, unix.SIGKILL)
			}
		}
		return nil
	})
}

func (s *Supervisor) now() machine.Instant { return machine.Instant(sys.Now()) }
