package activation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// DrainTimeout is how long Serve lets requests finish after it was told to leave.
// It is below 30s, sockd's default for stop_timeout, so that the service ends by
// itself and can say so.
const DrainTimeout = 25 * time.Second

// lastRequest is how long an idle connection is kept when draining. Closing it at
// once loses the request that may be on its way; one that comes within this time is
// answered and told that it was the last.
const lastRequest = 500 * time.Millisecond

// Serve serves srv on the stream listeners called names, or on all that were passed
// if no name is given, until SIGTERM or SIGINT arrives or ctx is done. Then it
// drains. If the process was given no sockets at all, it listens on srv.Addr by
// itself, as Listen does (":http" if that is empty).
//
// Where the unit has a readiness gate (ready = { http = "/healthz" }), srv answers it
// too, to sockd, root and its own user only: nothing more is to be done.
//
// It says Ready when it listens. Told to leave, it says Stopping, closes the
// listeners (connections not yet accepted stay queued in the supervisor's socket,
// for the next run), lets every request finish, answers one more request on each
// kept-alive connection, and returns nil. After DrainTimeout, or at a second signal
// (which then acts as it does by default), what is left is cut off; the first of
// these is an error. srv must not have been used; Serve replaces its Handler and
// ConnState by ones that call those given.
func Serve(ctx context.Context, srv *http.Server, names ...string) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ls, err := listenersFor(ctx, srv.Addr, names)
	if err != nil {
		return err
	}
	gates, err := gateListeners()
	if err != nil {
		for _, l := range ls {
			l.Close()
		}
		return err
	}
	ls = append(ls, gates...)
	d := newDrain(srv)
	ended := make(chan error, len(ls))
	for _, l := range ls {
		go func() { ended <- srv.Serve(l) }()
	}
	if err := Ready(); err != nil {
		srv.Close()
		return err
	}
	select {
	case err := <-ended: // none may end before it is told to
		srv.Close()
		return err
	case <-ctx.Done():
		stop() // a second signal ends the process
	}
	stopping := Stopping() // if nobody hears it, drain all the same
	d.begin()
	for _, l := range ls {
		l.Close()
	}
	for range ls {
		<-ended // now every accepted connection is known to srv
	}
	return errors.Join(d.finish(), stopping)
}

// listenersFor takes what was passed, else listens on addr.
func listenersFor(ctx context.Context, addr string, names []string) ([]net.Listener, error) {
	if len(names) == 0 {
		names = []string{""}
	}
	var all []net.Listener
	for _, name := range names {
		ls, err := Listeners(name)
		if errors.Is(err, ErrNotActivated) {
			if addr == "" {
				addr = ":http"
			}
			l, err := Listen(ctx, name, "tcp", addr)
			return []net.Listener{l}, err
		}
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return nil, err
		}
		all = append(all, ls...)
	}
	return all, nil
}

// A drain lets a server finish.
type drain struct {
	srv      *http.Server
	draining atomic.Bool
	moment   time.Duration // lastRequest, but for tests
	open     atomic.Int64  // connections
	empty    chan struct{} // gets a value when open becomes 0
}

// newDrain puts itself between srv and its handler.
func newDrain(srv *http.Server) *drain {
	d := &drain{srv: srv, moment: lastRequest, empty: make(chan struct{}, 1)}
	handler, connState := srv.Handler, srv.ConnState
	if handler == nil {
		handler = http.DefaultServeMux
	}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.draining.Load() {
			w.Header().Set("Connection", "close") // HTTP/2: a graceful GOAWAY
		}
		handler.ServeHTTP(w, r)
	})
	srv.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			d.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			if d.open.Add(-1) == 0 {
				d.tell()
			}
		}
		if connState != nil {
			connState(c, state)
		}
	}
	return d
}

func (d *drain) tell() {
	select {
	case d.empty <- struct{}{}:
	default: // told already
	}
}

// begin makes every response the last of its connection.
func (d *drain) begin() { d.draining.Store(true) }

// silence is how long a new connection may say nothing before it counts as idle, as
// in net/http.
const silence = 5 * time.Second

// finish waits until the connections have gone: those that are at work, those that
// were accepted and not yet heard, and, for a moment, idle ones that will send one
// more request. The rest is cut off after DrainTimeout. Shutdown comes last, since it
// drops a request that it has just read (net/http, conn.serve).
func (d *drain) finish() error {
	ctx, cancel := context.WithTimeout(context.Background(), DrainTimeout)
	defer cancel()
	moment := time.NewTimer(d.moment)
	defer moment.Stop()
	for d.open.Load() > 0 && ctx.Err() == nil {
		select {
		case <-d.empty: // perhaps an old message: look again
		case <-moment.C:
			d.srv.SetKeepAlivesEnabled(false) // closes the idle, and those that will be
			moment.Reset(silence)
		case <-ctx.Done():
		}
	}
	if err := d.srv.Shutdown(ctx); err != nil {
		d.srv.Close()
		return fmt.Errorf("activation: requests unfinished after %v were cut off: %w", DrainTimeout, err)
	}
	return nil
}
