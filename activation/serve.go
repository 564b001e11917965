package activation

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os/signal"
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
// itself, as Listen does (":http" if that is empty). It speaks HTTP/1 and, if
// srv.Protocols says so, HTTP/2, but not TLS: srv.TLSConfig is not looked at.
//
// Where the unit has a readiness gate (ready = { http = "/healthz" }), srv answers it
// too, to sockd, root and its own user only: nothing more is to be done. Of two calls
// in one process the first answers it, and each says Ready: what reaches the other's
// sockets meanwhile waits in their queues. Where the unit has a watchdog, run Watchdog
// beside Serve.
//
// It says Ready when it listens. Told to leave, it says Stopping, closes the
// listeners (connections not yet accepted stay queued in the supervisor's socket,
// for the next run; those of a socket of its own are lost), lets every request finish,
// answers one more request on each kept-alive connection, and returns nil. After
// DrainTimeout, or at a second signal (which then acts as it does by default, if the
// program does not catch it), what is left is cut off; the first of these is an error.
//
// A handler that goes on without end, such as a stream of events, is to end when what
// it has given to srv.RegisterOnShutdown is called: half a second after the signal, or
// later, up to five seconds more, while accepted connections have not asked for
// anything yet. Hijacked connections are not waited for.
//
// srv must not have been used; Serve replaces its Handler, ConnContext and ConnState by
// ones that call those given.
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
