package supervisor

import (
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

// Under an outer manager, systemd or another sockd, sockd is a service: it takes
// the sockets it is passed and says how it is.

// takePassed takes the sockets of LISTEN_FDS and removes the variables. Those that a program
// was passed which embeds a supervisor are its own.
func (s *Supervisor) takePassed(inv keeper.Inventory) {
	for name, fd := range inv.Descriptors { // the keeper was given them
		if !strings.HasPrefix(name, passedHeld) {
			continue
		}
		// A duplicate, so that it can be held under another name.
		if dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err == nil {
			s.passed = append(s.passed, dup)
		}
		s.keeper.Release(name)
	}
	if !s.cfg.Reap {
		return
	}
	for _, f := range passedFiles(s.log) {
		// Out of Go's hands. Fd leaves the socket in blocking mode, as services get it.
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		f.Close()
		if err != nil {
			s.log.Warn("passed socket lost", "name", f.Name(), "err", err)
			continue
		}
		s.passed = append(s.passed, fd)
	}
}

// firstPassed is the descriptor at which those that are passed begin (sd_listen_fds(3)).
const firstPassed = 3

// passedFiles are the descriptors that an outer manager has passed, and not just promised:
// where it passed fewer, what has the next number is our own, such as what Go's runtime
// waits with. What was passed through exec is told by not being closed by it.
func passedFiles(log *slog.Logger) []*os.File {
	const count = "LISTEN_FDS"
	promised, err := strconv.Atoi(os.Getenv(count))
	if err == nil && os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		there := 0
		for there < promised && sys.Inherited(firstPassed+there) {
			there++
		}
		if there < promised {
			log.Warn("passed sockets missing", "promised", promised, "there", there)
			os.Setenv(count, strconv.Itoa(there))
		}
	}
	return activation.Files(true)
}

// takePassedFor finds a passed socket of that kind and address.
func (s *Supervisor) takePassedFor(a units.Address) (int, bool) {
	for i, fd := range s.passed {
		if sys.BoundAs(fd, a.Network, a.Address) {
			s.passed = slices.Delete(s.passed, i, i+1)
			s.log.Info("socket taken over", "address", a.String(), "because", "an outer manager passed it")
			return fd, true
		}
	}
	return -1, false
}

// dropPassed closes passed sockets that no unit asks for.
func (s *Supervisor) dropPassed() {
	for _, fd := range s.passed {
		s.log.Warn("passed socket closed", "fd", fd, "because", "no unit listens on its address")
		unix.Close(fd)
	}
	s.passed = nil
}

// outer tells an outer manager how sockd is; without one it does nothing.
func (s *Supervisor) outer(lines ...string) {
	if s.cfg.Keeper != nil {
		s.cfg.Keeper.remote.Outer(strings.Join(lines, "\n"))
		return
	}
	if !s.cfg.Reap { // embedded: the program speaks for itself
		return
	}
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		s.log.Warn("outer manager not told", "err", err)
	}
}
