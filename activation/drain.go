package activation

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A drain lets a server finish.
type drain struct {
	srv      *http.Server
	draining atomic.Bool
	moment   time.Duration // lastRequest, but for tests
	limit    time.Duration // DrainTimeout, but for tests
	open     atomic.Int64  // connections
	unheard  atomic.Int64  // those of them of which no request has come to the handler yet
	fresh    sync.Map      // these, by net.Conn
	news     chan struct{} // gets a value when one of the two numbers becomes 0
}

// newDrain puts itself between srv and its handler.
func newDrain(srv *http.Server) *drain {
	d := &drain{srv: srv, moment: lastRequest, limit: DrainTimeout, news: make(chan struct{}, 1)}
	handler, connContext, connState := srv.Handler, srv.ConnContext, srv.ConnState
	if handler == nil {
		handler = http.DefaultServeMux
	}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.heard(r.Context().Value(connection{}))
		if d.draining.Load() {
			w.Header().Set("Connection", "close") // HTTP/2: a graceful GOAWAY
		}
		handler.ServeHTTP(w, r)
	})
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if connContext != nil {
			ctx = connContext(ctx, c)
		}
		return context.WithValue(ctx, connection{}, c)
	}
	srv.ConnState = func(c net.Conn, state http.ConnState) {
		d.note(c, state)
		if connState != nil {
			connState(c, state)
		}
	}
	return d
}

// connection is the key under which a request's context has its connection.
type connection struct{}

// note counts connections. StateActive says that a request has been read, and that
// Shutdown may still drop it: only its handler is heard.
func (d *drain) note(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		d.fresh.Store(c, nil)
		d.unheard.Add(1)
		d.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		d.heard(c)
		if d.open.Add(-1) == 0 {
			d.tell()
		}
	}
}

func (d *drain) heard(c any) {
	if d.unheard.Load() == 0 {
		return
	}
	if _, ok := d.fresh.LoadAndDelete(c); ok && d.unheard.Add(-1) == 0 {
		d.tell()
	}
}

func (d *drain) tell() {
	select {
	case d.news <- struct{}{}:
	default: // told already
	}
}

// begin makes every response the last of its connection.
func (d *drain) begin() { d.draining.Store(true) }

// silence is how long a new connection may say nothing before it counts as idle, as
// in net/http.
const silence = 5 * time.Second

// finish waits until the connections have gone: for a moment, idle ones that will send
// one more request; then those that were accepted and not yet heard; then those that
// are at work. What is left is cut off after DrainTimeout.
//
// Shutdown drops a request that it has just read (net/http, conn.serve), so it does not
// begin before everybody has been heard. It does not come last either: it closes the
// idle, and handlers that go on without end (RegisterOnShutdown) and clients of HTTP/2
// learn of it from nowhere else.
func (d *drain) finish() error {
	ctx, cancel := context.WithTimeout(context.Background(), d.limit)
	defer cancel()
	d.wait(ctx, d.moment, &d.open)
	d.wait(ctx, silence, &d.unheard)
	ended := make(chan error, 1)
	go func() { ended <- d.srv.Shutdown(ctx) }()
	for d.open.Load() > 0 {
		select {
		case <-d.news:
		case err := <-ended:
			if err != nil {
				d.srv.Close()
				return fmt.Errorf("activation: requests unfinished after %v were cut off: %w", d.limit, err)
			}
			return nil
		}
	}
	cancel() // Shutdown looks for the end now and then, and we know of it
	<-ended
	return nil
}

// wait waits until number is 0, at most that long.
func (d *drain) wait(ctx context.Context, most time.Duration, number *atomic.Int64) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for number.Load() > 0 && ctx.Err() == nil {
		select {
		case <-d.news: // perhaps an old message, or of the other number: look again
		case <-ctx.Done():
		}
	}
}
