package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor"
	"github.com/sockd/sockd/units"
)

// A disk that hangs under the unit files holds up the reload that reads them, and not
// the order to end that comes after it.
func TestOrderToEndIsHeardWhileFilesAreRead(t *testing.T) {
	reading, goOn := make(chan struct{}, 8), make(chan struct{})
	defer close(goOn)
	s := supervisor.New(supervisor.Config{Units: &units.Set{}, Log: slog.New(slog.DiscardHandler), Load: func() (*units.Set, error) {
		reading <- struct{}{}
		<-goOn
		return nil, errors.New("it was read too late")
	}})
	ctx, stop := context.WithCancelCause(t.Context())
	orders := make(chan os.Signal)
	defer close(orders)
	go obey(ctx, s, orders, false, stop)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	late := time.After(time.Minute)
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGHUP, syscall.SIGHUP, syscall.SIGTERM} {
		select {
		case orders <- sig:
		case <-late:
			t.Fatalf("%v is not heard", sig)
		}
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-late:
		t.Fatal("sockd does not end")
	}
	if n := len(reading); n > 1 {
		t.Errorf("the files were read %d times at once", n)
	}
}
