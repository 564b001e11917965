package supervisor

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/units"
)

// patience bounds every wait of a test. It is never waited out when all is well.
const patience = 60 * time.Second

// A fixture is a supervisor over unit files in a folder of its own.
type fixture struct {
	t      *testing.T
	dir    string
	s      *Supervisor
	out    *lockedBuffer // lines of services
	log    *lockedBuffer // the supervisor's own
	keeper *keeper.Local
	wrap   keeper.Keeper // what stands before it; nil: nothing
	format Format
	run    string // runtime folder; "": run in dir
	abrupt chan struct{}
	cancel context.CancelFunc
	ended  chan error

	past   []Event
	follow *follower
	seen   int // events before this one have been waited for
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newFixture writes the files, name then text, and starts a supervisor on them.
// ROLE in a text becomes the test binary and its role: exec = ROLE serve.
func newFixture(t *testing.T, files ...string) *fixture {
	t.Helper()
	f := prepare(t, files...)
	f.start()
	return f
}

func prepare(t *testing.T, files ...string) *fixture {
	t.Helper()
	return prepareOn(t, keeper.Options{}, files...)
}

func prepareOn(t *testing.T, o keeper.Options, files ...string) *fixture {
	t.Helper()
	k, err := keeper.NewLocal(o)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, dir: t.TempDir(), keeper: k, out: &lockedBuffer{}, log: &lockedBuffer{}}
	for i := 0; i < len(files); i += 2 {
		f.write(files[i], files[i+1])
	}
	t.Cleanup(func() {
		f.stop()
		k.Close()
		if t.Failed() {
			t.Logf("log:\n%s\noutput:\n%s", f.log, f.out)
		}
	})
	return f
}

// write writes a unit file. A line "role = NAME K=V …" becomes exec and environment.
func (f *fixture) write(name, text string) {
	f.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		f.t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		role, ok := strings.CutPrefix(strings.TrimSpace(line), "role = ")
		if !ok {
			b.WriteString(line)
			continue
		}
		words := strings.Fields(role)
		fmt.Fprintf(&b, "exec = [%s]\nenvironment = { TEST_ROLE = %s", units.Quote(exe), units.Quote(words[0]))
		for _, kv := range words[1:] {
			k, v, _ := strings.Cut(kv, "=")
			fmt.Fprintf(&b, ", %s = %s", k, units.Quote(v))
		}
		b.WriteString(" }\n")
	}
	if err := os.WriteFile(filepath.Join(f.dir, name+".toml"), []byte(b.String()), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) load() (*units.Set, error) { return units.Load(f.dir) }

// start runs a supervisor and waits until it has started its units.
func (f *fixture) start() {
	f.t.Helper()
	if err := f.tryStart(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) tryStart() error {
	f.t.Helper()
	set, err := f.load()
	if err != nil {
		f.t.Fatal(err)
	}
	f.abrupt = make(chan struct{})
	var k keeper.Keeper = f.keeper
	if f.wrap != nil {
		k = f.wrap
	}
	f.s = New(Config{Units: set, Load: f.load, Output: f.out, Format: f.format, keeper: k, abrupt: f.abrupt,
		RuntimeDir: cmp.Or(f.run, filepath.Join(f.dir, "run")),
		Log:        slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	f.s.events.most = 1 << 16
	f.past, f.follow, f.seen = nil, f.s.events.follow(), 0
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	ended := make(chan error, 1)
	f.ended = ended
	go func(s *Supervisor) { ended <- s.Run(ctx) }(f.s)
	select {
	case <-f.s.started:
		return nil
	case err := <-f.ended:
		f.ended = nil
		return err
	case <-time.After(patience):
		f.t.Fatal("not started in time")
		return nil
	}
}

// stop stops everything in good order and returns what Run returned.
func (f *fixture) stop() error {
	if f.ended == nil {
		return nil
	}
	f.cancel()
	return f.wait()
}

// wait waits for Run to return.
func (f *fixture) wait() error {
	f.t.Helper()
	select {
	case err := <-f.ended:
		f.ended = nil
		return err
	case <-time.After(patience):
		f.t.Errorf("not ended in time\n%s", f.log)
		return nil
	}
}

// crash ends the supervisor without any order; its keeper stays.
func (f *fixture) crash() {
	f.t.Helper()
	close(f.abrupt)
	if err := f.wait(); err != errAbrupt {
		f.t.Fatalf("ended with %v, not abruptly", err)
	}
}

// await returns the next event, after those waited for before, that fits.
func (f *fixture) await(what string, fits func(Event) bool) Event {
	f.t.Helper()
	late := time.After(patience)
	for {
		for f.seen < len(f.past) {
			e := f.past[f.seen]
			f.seen++
			if fits(e) {
				return e
			}
		}
		select {
		case <-f.follow.more:
			f.take()
		case <-late:
			f.t.Fatalf("no event: %s\nlog:\n%s\noutput:\n%s", what, f.log, f.out)
		}
	}
}

// take takes the events that have come.
func (f *fixture) take() {
	f.t.Helper()
	events, lost := f.s.events.take(f.follow)
	if lost > 0 {
		f.t.Fatalf("%d events were not kept", lost)
	}
	f.past = append(f.past, events...)
}

// awaitState waits until an instance says it is in that state.
func (f *fixture) awaitState(unit string, instance int, what string) Event {
	f.t.Helper()
	return f.await(fmt.Sprintf("%s@%d %s", unit, instance, what), func(e Event) bool {
		return e.Unit == unit && e.Instance == instance && e.What == what
	})
}

// until waits for a condition that something published can bring about.
func (f *fixture) until(what string, holds func() bool) {
	f.t.Helper()
	late := time.After(patience)
	for {
		changed := f.s.changes.wait()
		if holds() {
			return
		}
		select {
		case <-changed:
		case <-late:
			f.t.Fatalf("not in time: %s\nlog:\n%s", what, f.log)
		}
	}
}

// unit is a unit's status now.
func (f *fixture) unit(name string) UnitStatus {
	f.t.Helper()
	st, ok := f.s.Unit(name)
	if !ok {
		f.t.Fatalf("no unit %s", name)
	}
	return st
}

// address is where a unit's first socket of that name is bound.
func (f *fixture) address(unit, socket string) string {
	f.t.Helper()
	for _, k := range f.unit(unit).Sockets {
		if k.Name == socket {
			return k.Address
		}
	}
	f.t.Fatalf("unit %s has no socket %s", unit, socket)
	return ""
}

// do asks for a verb and wants that outcome.
func (f *fixture) do(verb, unit, outcome string) Outcome {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := verbs[verb](f.s, ctx, errand{unit: unit, wait: true})
	if err != nil {
		f.t.Fatalf("%s %s: %v", verb, unit, err)
	}
	if out.Outcome != outcome {
		f.t.Fatalf("%s %s: %s (%s), want %s\nlog:\n%s\noutput:\n%s", verb, unit, out.Outcome, out.Because, outcome, f.log, f.out)
	}
	return out
}
