package supervisor

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"golang.org/x/sys/unix"
)

// Two processes: the one that was started is the keeper and calls Keep; it starts
// itself again in the role of the supervisor, which calls Attach.

// A Care says how a keeper looks after its supervisors. Its zero value is right for
// everybody but tests.
type Care struct {
	// Watchdog is how long a supervisor may take no notice of news before it is killed
	// and followed by another. Default 10s. One that is stopped is so after 0.5s.
	Watchdog time.Duration
	// Steady is how long a supervisor must have lived for its death to count as the
	// first. Default 10s.
	Steady time.Duration
	// Log takes what supervisors log, whole lines in each Write, which must not wait.
	// A line is not lost with the supervisor that has said it. Default standard error.
	Log io.Writer
}

// Keep makes this process a keeper. It starts argv, which is this program again,
// as the supervisor, and another one whenever that ends without having said Bye; it
// holds sockets, processes and saved state meanwhile. It returns the exit code that
// the last supervisor said Bye with. The signals TERM, INT and HUP are passed on.
// The process becomes a subreaper and must have no children of its own.
//
// A process that an upgrade has put in a keeper's place goes on where that was.
func Keep(argv []string, log *slog.Logger, care Care) (code int, err error) {
	outer := func(text string) {
		if _, err := daemon.SdNotify(false, text); err != nil {
			log.Warn("outer manager not told", "err", err)
		}
	}
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE) // a log that nobody reads any more is no end
	sys.ReserveThreads(keeperThreads)
	oneByOne()
	options := keeper.Options{Reap: true, Log: log, Store: outerStore(log), Score: sys.SpareKeeper()}
	duty := keeper.Duty{Argv: argv, Log: log, Outer: outer, Watchdog: care.Watchdog, Steady: care.Steady}
	if options.Out = care.Log; care.Log == nil {
		options.Out = os.Stderr
	}
	if d, ok := care.Log.(interface{ Drain() }); ok {
		duty.Drain = d.Drain
	}
	if keeper.Resuming() {
		duty.Env = keeper.Environ()
		return keeper.Resume(options, duty)
	}
	if err := sys.CheckProc(); err != nil {
		return 1, err
	}
	os.Unsetenv(keeper.SafeVariable) // of somebody else's keeper
	os.Unsetenv(keeper.SpillVariable)
	if name, err := os.Executable(); err == nil { // now: the file may be replaced later
		os.Setenv(fileVariable, name)
	}
	local, err := keeper.NewLocal(options)
	if err != nil {
		return 1, fmt.Errorf("keeper: %w", err)
	}
	defer local.Close()
	for i, f := range passedFiles(log) { // of an outer manager: for the supervisor to look at
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		f.Close()
		if err == nil {
			err = local.Hold(passedName(i, f.Name()), fd)
		}
		if err != nil {
			log.Warn("passed socket lost", "name", f.Name(), "err", err)
		}
	}
	duty.Env = os.Environ()
	return keeper.Guard(local, duty)
}

// oneByOne has the goroutines of a keeper run one at a time. What is done for a start goes
// from one to the next, and each would else be looked for by another thread, on a CPU that
// has to be woken: that takes longer than the work. A supervisor is not so: who reads what
// services write without end would have callers wait.
func oneByOne() { runtime.GOMAXPROCS(1) }

// Threads made ahead, for when services have taken all that a container or a user
// may have: the keeper must not end for want of one, and the supervisor need not.
const keeperThreads, supervisorThreads = 16, 16

// HandBack lets the keeper before this process go on, if this has been put in its
// place by an upgrade and cannot go on by itself. Then it does not return.
func HandBack(because string) { keeper.HandBack(because) }

// passedHeld begins the names of sockets that an outer manager gave to the keeper.
const passedHeld = "passed/"

// A Keeper is the other end of Keep, in the supervisor's process.
type Keeper struct {
	remote *keeper.Remote
	safe   string
	spills bool // in safe mode: output is thrown away
	orders chan os.Signal

	handed  atomic.Pointer[string] // the id of the upgrade that is under way; nil: there is none
	leaving atomic.Bool            // and this supervisor ends for it
	goesOn  atomic.Bool            // it could not go on where another had left off: yet another may
}

// Attach returns the keeper that has started this process, or nil if none has. It
// removes what it has read from the environment.
func Attach() (*Keeper, error) {
	text, ok := os.LookupEnv(keeper.FDVariable)
	if !ok {
		return nil, nil
	}
	safe, spills := os.Getenv(keeper.SafeVariable), os.Getenv(keeper.SpillVariable) != ""
	os.Unsetenv(keeper.FDVariable)
	os.Unsetenv(keeper.SafeVariable)
	os.Unsetenv(keeper.SpillVariable)
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s=%q is no descriptor", keeper.FDVariable, text)
	}
	syscall.CloseOnExec(fd)
	sys.SpareSupervisor()
	go sys.ReserveThreads(supervisorThreads) // beside what else begins
	remote, err := keeper.Dial(fd)
	if err != nil {
		return nil, fmt.Errorf("keeper: %s=%d: %w", keeper.FDVariable, fd, err)
	}
	k := &Keeper{remote: remote, safe: strings.TrimSpace(safe), spills: spills, orders: make(chan os.Signal, 16)}
	go func() {
		for {
			select {
			case sig := <-remote.Orders():
				k.orders <- sig
			case <-remote.Gone():
				return
			}
		}
	}()
	return k, nil
}

// Orders are the signals that the keeper's process was sent.
func (k *Keeper) Orders() <-chan os.Signal { return k.orders }

// Safe says whether this supervisor is in safe mode: it answers and changes nothing,
// since those before it have died one after the other.
func (k *Keeper) Safe() bool { return k.safe != "" }

// Write has the keeper write lines to its Care's Log: use it for Config.Log.
func (k *Keeper) Write(lines []byte) (int, error) { return k.remote.Write(lines) }

// Bye ends the keeper too, with that exit code, once this process has ended.
// A supervisor that an upgrade replaces has no say; nor has one that, for want of
// descriptors say, could not go on where another had left off: services run, and the
// keeper tries again.
func (k *Keeper) Bye(code int) error {
	if k.leaving.Load() || k.goesOn.Load() {
		return nil
	}
	return k.remote.Bye(code)
}

// pid is the process that people started: the keeper's where there is one.
func (s *Supervisor) pid() int {
	if s.cfg.Keeper != nil {
		return os.Getppid()
	}
	return os.Getpid()
}

// errKeeperGone: nothing can be held or started any more.
var errKeeperGone = errors.New("the keeper's process has ended")
