package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

// The control API is HTTP and JSON on a Unix socket that only its owner and root
// can reach. Readers take what is published; verbs become events in the loop.

// openControl takes the control socket that the keeper holds, or makes one; nil without
// a runtime folder.
func (s *Supervisor) openControl(dir *runtimeDir, inv keeper.Inventory) (ln net.Listener, err error) {
	if dir.path == "" {
		return nil, nil
	}
	if fd, ok := inv.Descriptors["control"]; ok {
		ln, err = listenerOf(fd)
	} else {
		ln, err = s.makeControl(filepath.Join(dir.path, ControlSocket))
	}
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return ln, nil
}

// serveControl serves it until stop is called.
func (s *Supervisor) serveControl(dir *runtimeDir, inv keeper.Inventory, ln net.Listener) (stop func()) {
	if ln == nil {
		return func() {}
	}
	c := newVisitors()
	server := &http.Server{
		Handler:           c.admit(s.Handler()),
		ConnState:         c.changed,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	go server.Serve(ln)
	leave := s.keepDoor(dir, inv, ln, func(ln net.Listener) { server.Serve(ln) })
	return func() {
		leave()
		server.Close()
		if s.crashed != nil {
			return
		}
		os.Remove(filepath.Join(dir.path, ControlSocket))
		s.keeper.Release("control")
	}
}

// makeControl makes one, and has the keeper hold it in place of any other. The folder is
// ours alone and locked, so what lies at path is a dead supervisor's.
func (s *Supervisor) makeControl(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if len(path) > 107 {
		return nil, fmt.Errorf("%s: longer than the 107 bytes that a Unix socket allows; choose a shorter --runtime-dir", path)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	unix.Fchmod(fd, 0o600) // the path is made with the socket's own mode, so it never is wider
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), os.Chmod(path, 0o600), unix.Listen(fd, controlBacklog)); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if err := s.keeper.Hold("control", fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return listenerOf(fd)
}

// listenerOf makes a listener of a duplicate of fd. It is switched to non-blocking,
// which is right here: nobody but sockd has it.
func listenerOf(fd int) (net.Listener, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), "control")
	defer f.Close()
	return net.FileListener(f)
}

// Handler returns the control API, for a program that embeds a supervisor and
// serves it by itself.
func (s *Supervisor) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/units", func(w http.ResponseWriter, r *http.Request) { reply(w, http.StatusOK, s.Units()) })
	mux.HandleFunc("GET /v1/units/{name}", s.getUnit)
	mux.HandleFunc("POST /v1/units/{name}/{verb}", s.postVerb)
	mux.HandleFunc("GET /v1/sockets", s.getSockets)
	mux.HandleFunc("GET /v1/events", s.getEvents)
	mux.HandleFunc("POST /v1/reload", s.postReload)
	mux.HandleFunc("POST /v1/upgrade", s.postUpgrade)
	mux.HandleFunc("GET /v1/upgrade", s.getUpgrade)
	m := s.newMetrics()
	mux.HandleFunc("GET /metrics", m.serve)
	mux.HandleFunc("GET /healthz", s.getHealth)
	mux.HandleFunc("GET /readyz", s.getReady)
	mux.HandleFunc("/", otherwise(mux))
	return m.timed(bounded(mux))
}

// An APIError is the body of every answer that is not a success.
type APIError struct {
	Text     string   `json:"error"`
	Problems []string `json:"problems,omitempty"` // of unit files, each with its place; Text has them all
	Status   int      `json:"-"`                  // HTTP status
}

func (e *APIError) Error() string { return e.Text }

// A misuse is a request that cannot be followed, whatever the unit is like.
type misuse string

func (m misuse) Error() string { return string(m) }

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.Encode(body)
}

func (s *Supervisor) getUnit(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	st, ok := s.Unit(name)
	if !ok {
		reply(w, http.StatusNotFound, noUnit(name))
		return
	}
	reply(w, http.StatusOK, st)
}

func noUnit(name string) *APIError { return &APIError{Text: fmt.Sprintf("no unit is called %q", name)} }

func (s *Supervisor) getSockets(w http.ResponseWriter, r *http.Request) {
	all := []SocketStatus{}
	for _, u := range s.Units() {
		all = append(all, u.Sockets...)
	}
	reply(w, http.StatusOK, all)
}

// postVerb does start, stop, restart, reload, pause, resume, and scale with
// instances=N. It waits for the outcome, unless wait=false, at most for timeout (a duration; default 90s).
// With prove=true the answer says too what clients met meanwhile. A request that is heard
// again under the same request=NAME is carried out once, and another one under that name is refused.
func (s *Supervisor) postVerb(w http.ResponseWriter, r *http.Request) {
	name, verb := r.PathValue("name"), r.PathValue("verb")
	do, ok := verbs[verb]
	what := verb
	if verb == "scale" {
		n, err := strconv.Atoi(r.URL.Query().Get("instances"))
		if err != nil {
			reply(w, http.StatusBadRequest, &APIError{Text: fmt.Sprintf("instances: %q is no number", r.URL.Query().Get("instances"))})
			return
		}
		do, ok = func(s *Supervisor, ctx context.Context, e errand) (Outcome, error) { return s.scaleUnit(ctx, e, n) }, true
		what = fmt.Sprintf("scale instances=%d", n)
	}
	if count := r.URL.Query().Get("canary"); verb == "restart" && count != "" {
		do = func(s *Supervisor, ctx context.Context, e errand) (Outcome, error) {
			return s.canaryUnit(ctx, e, count)
		}
		what = "restart canary=" + count
	}
	if !ok {
		reply(w, http.StatusNotFound, &APIError{Text: fmt.Sprintf("no verb is called %q; there are start, stop, restart, reload, scale, pause, resume, promote and abort", verb)})
		return
	}
	timeout := 90 * time.Second
	if t := r.URL.Query().Get("timeout"); t != "" {
		var err error
		if timeout, err = time.ParseDuration(t); err != nil || timeout <= 0 {
			reply(w, http.StatusBadRequest, &APIError{Text: fmt.Sprintf("timeout: %q is no duration such as 30s", t)})
			return
		}
	}
	for _, name := range []string{"wait", "prove"} {
		if v := r.URL.Query().Get(name); v != "" && v != "true" && v != "false" {
			reply(w, http.StatusBadRequest, &APIError{Text: fmt.Sprintf("%s: %q is neither true nor false", name, v)})
			return
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	e := errand{unit: name, wait: r.URL.Query().Get("wait") != "false", id: r.URL.Query().Get("request"), what: what}
	if len(e.id) > maxErrandID {
		reply(w, http.StatusBadRequest, &APIError{Text: fmt.Sprintf("request: longer than %d bytes", maxErrandID)})
		return
	}
	var out any
	var err error
	switch prove := r.URL.Query().Get("prove") == "true"; {
	case prove && !e.wait:
		reply(w, http.StatusBadRequest, &APIError{Text: "prove: there is nothing to look at without waiting"})
		return
	case prove:
		out, err = s.proven(ctx, name, func(ctx context.Context) (Outcome, error) { return do(s, ctx, e) })
	default:
		out, err = do(s, ctx, e)
	}
	switch {
	case errors.Is(err, errNoUnit):
		reply(w, http.StatusNotFound, noUnit(name))
	case errors.As(err, new(misuse)):
		reply(w, http.StatusBadRequest, &APIError{Text: err.Error()})
	case err != nil:
		reply(w, http.StatusConflict, &APIError{Text: err.Error()})
	default:
		reply(w, http.StatusOK, out)
	}
}

// postReload reads all files again. With wait=false it does not wait for them: what is
// wrong is in the log.
func (s *Supervisor) postReload(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("wait") == "false" {
		go s.Reload(context.WithoutCancel(r.Context())) // at the latest the end of the supervisor ends it
		reply(w, http.StatusOK, ReloadOutcome{Outcome: Outcome{Outcome: Asked}})
		return
	}
	warnings, err := s.reload(r.Context())
	if err != nil {
		e := &APIError{Text: err.Error()}
		var problems units.Problems
		errors.As(err, &problems)
		for _, p := range problems {
			e.Problems = append(e.Problems, p.Error())
		}
		reply(w, http.StatusConflict, e)
		return
	}
	reply(w, http.StatusOK, ReloadOutcome{Outcome: Outcome{Outcome: Done}, Warnings: warnings})
}

// A ReloadOutcome is what POST /v1/reload answers.
type ReloadOutcome struct {
	Outcome
	Warnings []string `json:"warnings,omitempty"` // what the files ask for and living sockets do not take: it needs new sockets
}

// getEvents sends the kept events and, unless follow=false, those to come, a JSON
// object a line.
func (s *Supervisor) getEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	if r.URL.Query().Get("follow") == "false" {
		for _, e := range s.events.past() {
			enc.Encode(e)
		}
		return
	}
	f := s.events.follow()
	defer s.events.unfollow(f)
	rc := http.NewResponseController(w)
	for {
		select {
		case <-f.more:
			events, lost := s.events.take(f)
			if lost > 0 {
				enc.Encode(Event{Time: time.Now(), What: "lost", Because: fmt.Sprintf("this reader was too slow for %d events", lost)})
			}
			for _, e := range events {
				if enc.Encode(e) != nil {
					return
				}
			}
			if rc.Flush() != nil {
				return
			}
		case <-r.Context().Done():
			return
		case <-s.quit:
			return
		}
	}
}

// getHealth asks the loop: a supervisor whose loop does not turn is not healthy.
func (s *Supervisor) getHealth(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	if err := s.ask(ctx, func() error { return nil }); err != nil {
		reply(w, http.StatusServiceUnavailable, &APIError{Text: err.Error()})
		return
	}
	reply(w, http.StatusOK, map[string]string{"status": "ok"})
}

// getReady: every unit that is wished up is ready, or waits for a caller.
func (s *Supervisor) getReady(w http.ResponseWriter, r *http.Request) {
	select {
	case <-s.started:
	default:
		reply(w, http.StatusServiceUnavailable, &APIError{Text: "starting"})
		return
	}
	for _, u := range s.published() {
		for _, in := range u.Instances {
			if u.Up && in.State != "ready" && in.State != "idle" && in.State != "ended" {
				reply(w, http.StatusServiceUnavailable, &APIError{Text: fmt.Sprintf("%s@%d is %s", u.Name, in.Instance, in.State)})
				return
			}
		}
	}
	reply(w, http.StatusOK, map[string]string{"status": "ready"})
}
