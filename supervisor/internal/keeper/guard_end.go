package keeper

import (
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// endAll ends every process that is still listed: SIGTERM, the grace, SIGKILL. One
// that the kernel holds is waited for a second more. No supervisor has made a record of
// their ends, nor of ends that it did not acknowledge.
func (g *guard) endAll() {
	inv, err := g.local.Inventory()
	if err != nil {
		return
	}
	alive := map[ID]bool{}
	for _, c := range inv.Children {
		if !c.ended() {
			alive[c.ID] = true
		}
		for _, ev := range c.Pending {
			g.record(ev)
		}
	}
	for _, step := range []struct {
		sig  unix.Signal
		wait time.Duration
	}{{unix.SIGTERM, g.Grace}, {unix.SIGKILL, time.Second}} {
		for id := range alive {
			g.local.Signal(id, step.sig)
		}
		g.awaitExits(alive, step.wait)
	}
}

func (g *guard) awaitExits(alive map[ID]bool, patience time.Duration) {
	late := time.NewTimer(patience)
	defer late.Stop()
	for len(alive) > 0 {
		select {
		case ev := <-g.local.Events():
			if ev.Kind != Execed && alive[ev.ID] { // else it is on record
				delete(alive, ev.ID)
				g.record(ev)
			}
			g.local.Acknowledge(ev)
		case <-late.C:
			return
		}
	}
}

// record says how a run has ended.
func (g *guard) record(ev Event) {
	run := []any{slog.String("unit", ev.ID.Unit), slog.Int("instance", ev.ID.Instance), slog.Uint64("generation", ev.ID.Gen)}
	switch ev.Kind {
	case Exited:
		because := describe(sys.Status{Code: ev.Code, Signal: ev.Signal})
		if ev.Err != "" { // nobody knows how
			because = ev.Err
		}
		g.Log.Warn("exited", append(run, slog.Int("pid", ev.Pid), slog.String("because", because))...)
	case SpawnFailed:
		g.Log.Warn("not started", append(run, slog.String("because", ev.Stage+": "+ev.Err))...)
	}
}
