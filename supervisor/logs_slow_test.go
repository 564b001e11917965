package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// An output that is taken slowly is waited for to its end: patience is for one that
// nobody takes.
func TestSlowOutputIsWrittenToItsEnd(t *testing.T) {
	late, waiting := make(chan time.Time), make(chan struct{}, 1)
	defer func(before func() <-chan time.Time) { outputLate = before }(outputLate)
	outputLate = func() <-chan time.Time { waiting <- struct{}{}; return late }
	k, err := keeper.NewLocal(keeper.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	f := &fixture{t: t, dir: t.TempDir(), keeper: k, out: &lockedBuffer{}, log: &lockedBuffer{}}
	f.write("loud", "[service]\nrole = lines TEST_LINES=200000\n")
	set, err := f.load()
	if err != nil {
		t.Fatal(err)
	}
	out := &slowWriter{begun: make(chan struct{}, 1), end: make(chan struct{})}
	s := New(Config{Units: set, Output: out, RuntimeDir: filepath.Join(f.dir, "run"), keeper: k, Log: slog.New(slog.NewTextHandler(f.log, nil))})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	<-s.started
	<-out.begun // a first piece is on its way
	waitFor(t, "more", func() (more bool) {
		s.ask(t.Context(), func() error { more = inPipe(s.units["loud"].runs[1].log) > 0; return nil })
		return more
	})
	cancel()
	<-waiting // the service has ended
	out.end <- struct{}{}
	<-out.begun // the first piece has been taken, and another is on its way
	late <- time.Now()
	select {
	case <-waiting:
	case err := <-ended:
		t.Fatalf("ended with %v while its output was being taken\n%s", err, f.log)
	}
	go func() {
		for range out.begun {
		}
	}()
	close(out.end)
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(out.begun)
	if strings.Contains(f.log.String(), "output not written") {
		t.Errorf("patience ended\n%s", f.log)
	}
}
