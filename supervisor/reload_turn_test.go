package supervisor

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sockd/sockd/units"
)

// Of two reloads the one that has read the files later is followed later: nobody reads
// them while another is about to follow what it has read.
func TestReloadsDoNotOvertake(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	reading, goOn := make(chan struct{}), make(chan struct{})
	reads := 0
	f.s.cfg.Load = func() (*units.Set, error) {
		if reads++; reads == 1 {
			close(reading)
			<-goOn
		}
		return f.load()
	}
	first := make(chan error, 1)
	go func() { first <- f.s.Reload(context.Background()) }()
	<-reading
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.s.Reload(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("the second ended with %v, want %v", err, context.Canceled)
	}
	if reads != 1 {
		t.Error("the second has read the files while the first was about to follow them")
	}
	close(goOn)
	select {
	case err := <-first:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the first has not ended")
	}
	if err := f.s.Reload(t.Context()); err != nil || reads != 2 {
		t.Errorf("the next one: %v, the files were read %d times, want 2", err, reads)
	}
}
