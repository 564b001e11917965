package keeper

import (
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// settle is how long after a SIGCHLD, of which a service that has ended makes one too, it
// is looked whether the supervisor is stopped: the news of the service goes first.
const settle = 50 * time.Millisecond

// attend passes news and signals to a supervisor, and loses patience with one that
// is stopped or hears nothing, until it has ended.
func (g *guard) attend(s *session, p *sys.Process, exit <-chan string) {
	v := &vigil{guard: g, p: p, patience: time.NewTimer(g.Watchdog), stops: time.NewTimer(settle), looking: true}
	v.patience.Stop()
	late := g.trialTimer()
	for {
		g.flush(s)
		events, serving := g.local.Events(), s.serving
		if s.busy { // more is said when it has taken what is being said
			events, serving = nil, nil
		}
		select {
		case t := <-s.handed:
			if g.accept(t); !g.ending {
				v.patience.Reset(g.Watchdog) // to end
			}
		case goOn := <-serving:
			if g.served(s, p) {
				late = nil
			}
			close(goOn)
		case <-late:
			v.kill("it was not serving after " + g.Trial.String())
		case ev := <-events:
			s.news(ev)
			v.told()
		case err := <-s.sent:
			g.sent(s, err)
		case <-s.acked:
			v.heard()
		case sig := <-g.signals:
			g.take(sig)
		case <-g.hints:
			v.lookSoon()
		case <-v.stops.C:
			v.look()
		case <-v.patience.C:
			v.lose()
		case <-s.ended:
			if s.bye.Load() == 0 {
				p.Signal(unix.SIGKILL) // it has closed its end, or makes no sense
			}
			v.end(<-exit)
			return
		case reason := <-exit:
			v.end(reason)
			return
		}
	}
}

// A vigil is a guard's patience with one supervisor.
type vigil struct {
	*guard
	p        *sys.Process
	patience *time.Timer // it is killed then
	stops    *time.Timer // it is looked then whether it is stopped
	looking  bool        // that is going to be
	stopped  bool        // it was when it was looked
	unheard  int         // pieces of news since it took notice of something
	killed   string      // why; "" if we have not
}

// told: there is something it has to take notice of. In safe mode it acknowledges nothing.
func (v *vigil) told() {
	if v.unheard++; v.unheard == 1 && !v.stopped && !v.safe && !v.leaves() {
		v.patience.Reset(v.Watchdog)
	}
}

// heard: it takes notice.
func (v *vigil) heard() {
	v.unheard = 0
	if !v.stopped && !v.leaves() {
		v.patience.Stop()
	}
}

// leaves: it has handed over a file, and has only to end.
func (v *vigil) leaves() bool { return v.trial != nil && !v.onTrial() && !v.ending }

// lookSoon: some child has been stopped or has ended.
func (v *vigil) lookSoon() {
	if !v.looking {
		v.looking = true
		v.stops.Reset(settle)
	}
}

func (v *vigil) look() {
	v.looking = false
	if now := v.p.Stopped(); now != v.stopped {
		v.begin(now)
	}
}

// begin begins anew to be patient with a supervisor that has been stopped or goes on.
func (v *vigil) begin(stopped bool) {
	v.stopped = stopped
	switch {
	case stopped:
		v.patience.Reset(v.Stopped)
	case v.unheard > 0 && !v.safe, v.leaves():
		v.patience.Reset(v.Watchdog)
	default:
		v.patience.Stop()
	}
}

// lose: that was all the patience there is.
func (v *vigil) lose() {
	because := "it took no notice of news for " + v.Watchdog.String()
	switch {
	case v.leaves() && !v.stopped:
		because = "it did not end within " + v.Watchdog.String() + " for an upgrade"
	case v.stopped && !v.p.Stopped(): // we were stopped too, and have come back with it
		v.begin(false)
		return
	case v.stopped:
		because = "it was stopped for " + v.Stopped.String()
	}
	v.Log.Error("supervisor killed", slog.Int("pid", v.p.Pid), slog.String("because", because))
	v.kill(because)
}

func (v *vigil) kill(because string) {
	v.killed = because
	v.p.Signal(unix.SIGKILL)
}

// end notes how it has ended.
func (v *vigil) end(reason string) {
	if v.reason = reason; v.killed != "" {
		v.reason = v.killed
	}
}
