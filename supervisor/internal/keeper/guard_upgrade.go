package keeper

import (
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// An upgrade goes in two steps, and back if one of them fails. First the new file is
// tried as the supervisor, which may die as often as it likes. When it serves, the
// keeper executes it in its own place, and the supervisor stays.

// An Outcome is what has become of an upgrade.
type Outcome struct {
	ID      string // as it was asked for; "" if there never was one
	Outcome string // UnderWay, Done or RolledBack
	Because string
}

// What an Outcome may be.
const (
	UnderWay   = "under way"
	Done       = "done"
	RolledBack = "rolled back"
)

// A trial is of a file that is to take over.
type trial struct {
	id     string
	file   int // its descriptor
	starts int // so far
}

// trialStarts is how often a supervisor of the new file is started before the file
// is given up.
const trialStarts = 3

// accept begins an upgrade. The supervisor that wants it ends by itself.
func (g *guard) accept(t *trial) {
	if g.trial != nil {
		unix.Close(g.trial.file)
	}
	g.trial = t
	g.outcome = Outcome{ID: t.id, Outcome: UnderWay}
	g.early = 0
	g.Log.Info("upgrade", slog.String("id", t.id))
}

// tried gives the new file up when it has been tried often enough.
func (g *guard) tried() {
	if g.trial != nil && g.trial.starts >= trialStarts {
		g.giveUp(fmt.Sprintf("the new supervisor ended %d times before it served: %s", g.trial.starts, g.reason))
	}
}

// giveUp goes back to the file that runs here.
func (g *guard) giveUp(because string) {
	unix.Close(g.trial.file)
	g.trial, g.early = nil, 0
	g.settle(RolledBack, because)
	g.Log.Error("upgrade rolled back", slog.String("because", because))
}

// settle notes what has become of the upgrade. The supervisor is told next.
func (g *guard) settle(outcome, because string) {
	g.outcome.Outcome, g.outcome.Because = outcome, because
	g.told = nil
}

// served: the supervisor serves. If it was on trial, the keeper follows; that does
// not return if it works. False if there was no trial.
func (g *guard) served(s *session, p *sys.Process) bool {
	if !g.onTrial() {
		return false
	}
	err := g.handOver(s, p, g.trial.file)
	g.giveUp("the keeper could not be replaced: " + err.Error())
	p.Signal(unix.SIGKILL) // the file that it came from is not the keeper's
	return true
}

// onTrial says whether the supervisor that is there is of the new file.
func (g *guard) onTrial() bool { return g.trial != nil && g.trial.starts > 0 }

// trialTimer is when a supervisor on trial has taken too long; nil if it is not.
func (g *guard) trialTimer() <-chan time.Time {
	if !g.onTrial() {
		return nil
	}
	return time.After(g.Trial)
}

// aside duplicates file to where a fork that hands over fd does not put anything.
func aside(file, fd int) (int, error) {
	dup, err := unix.FcntlInt(uintptr(file), unix.F_DUPFD_CLOEXEC, max(file, fd)+16)
	if err != nil {
		return -1, fmt.Errorf("new file: %w", err)
	}
	return dup, nil
}
