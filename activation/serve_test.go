package activation

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// serveRole answers with its pid; /slow says so, and waits for the end of the
// request's body.
func serveRole() error {
	mux := http.NewServeMux()
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		fmt.Fprintln(w, "begun")
		http.NewResponseController(w).Flush()
		io.Copy(w, r.Body)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, os.Getpid())
	})
	return Serve(context.Background(), &http.Server{Handler: mux}, "http")
}

// TestServeLosesNoRequest replaces a server under load five times, as a supervisor
// does: the new run is ready before the old one is told to leave. Requests are POSTs,
// which no client repeats by itself, on kept-alive and on fresh connections.
func TestServeLosesNoRequest(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	held := []*os.File{file(t, l)}
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	next := func() *child {
		c := start(t, "serve", held, "LISTEN_PID=self", "LISTEN_FDS=1", "LISTEN_FDNAMES=http", m.env())
		if got, _ := m.read(t); got != "READY=1" {
			t.Fatalf("got %q", got)
		}
		return c
	}
	c := next()
	ctx, cancel := context.WithCancel(t.Context())
	var served, failed atomic.Int64
	var seen sync.Map
	pulse := make(chan struct{}, 1) // news of a served request
	var clients sync.WaitGroup
	for i := range 8 {
		transport := &http.Transport{DisableKeepAlives: i%2 == 0}
		defer transport.CloseIdleConnections()
		clients.Go(func() {
			for ctx.Err() == nil {
				pid, err := post(transport, l.Addr().String())
				if err != nil {
					failed.Add(1)
					t.Error(err)
					return
				}
				seen.Store(pid, true)
				served.Add(1)
				select {
				case pulse <- struct{}{}:
				default:
				}
			}
		})
	}
	for round := range int64(5) {
		for served.Load() < (round+1)*200 && failed.Load() == 0 {
			<-pulse
		}
		old := c
		c = next()
		old.Process.Signal(syscall.SIGTERM)
		if got, _ := m.read(t); got != "STOPPING=1" {
			t.Errorf("got %q", got)
		}
		if rest := old.rest(t); rest != "" || !old.ProcessState.Success() {
			t.Errorf("%v: %s", old.ProcessState, rest)
		}
	}
	cancel()
	clients.Wait()
	pids := 0
	seen.Range(func(any, any) bool { pids++; return true })
	if pids < 5 {
		t.Errorf("only %d of 6 processes answered", pids)
	}
	t.Logf("%d requests served by %d processes, %d lost", served.Load(), pids, failed.Load())
}

func post(transport http.RoundTripper, addr string) (string, error) {
	req, err := http.NewRequest("POST", "http://"+addr, io.MultiReader(strings.NewReader("x"))) // no GetBody: not repeatable
	if err != nil {
		return "", err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// A request that is being answered at SIGTERM is finished, however slowly: even after
// the idle connections have been closed.
func TestServeFinishesWhatItBegan(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	c := start(t, "serve", []*os.File{file(t, l)}, "LISTEN_PID=self", "LISTEN_FDS=1", "LISTEN_FDNAMES=http", m.env())
	if got, _ := m.read(t); got != "READY=1" {
		t.Fatal(got)
	}
	body, input := io.Pipe()
	req, err := http.NewRequestWithContext(limited(t), "POST", "http://"+l.Addr().String()+"/slow", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := new(http.Transport).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	idle, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	deadline, _ := limited(t).Deadline()
	idle.SetDeadline(deadline)
	fmt.Fprint(idle, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	answer := bufio.NewReader(idle)
	if _, err := http.ReadResponse(answer, nil); err != nil {
		t.Fatal(err)
	}
	c.Process.Signal(syscall.SIGTERM)
	if got, _ := m.read(t); got != "STOPPING=1" {
		t.Error(got)
	}
	if _, err := io.Copy(io.Discard, answer); err != nil {
		t.Error("the idle connection was not closed: ", err)
	}
	fmt.Fprint(input, "the rest")
	input.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(got, []byte("begun\nthe rest")) {
		t.Errorf("got %q, %v", got, err)
	}
	if rest := c.rest(t); !c.ProcessState.Success() {
		t.Errorf("%v: %s", c.ProcessState, rest)
	}
}

// Without a supervisor Serve listens by itself, and a context ends it as a signal does.
func TestServeByItself(t *testing.T) {
	ctx, cancel := context.WithCancel(limited(t))
	srv := &http.Server{Addr: "127.0.0.1:0", Handler: http.NotFoundHandler()}
	served := make(chan net.Addr, 1)
	srv.BaseContext = func(l net.Listener) context.Context {
		served <- l.Addr()
		return context.Background()
	}
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, srv) }()
	addr := <-served
	resp, err := http.Get("http://" + addr.String())
	if err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("got %v, %v", resp, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", addr.String()); err == nil {
		c.Close()
		t.Error("still listening")
	}
}

func TestServeSaysWhyItCannot(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // without SO_REUSEPORT: nobody can join
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = Serve(limited(t), &http.Server{Addr: l.Addr().String()})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v", err)
	}
	c := start(t, "serve", []*os.File{file(t, l)}, "LISTEN_PID=self", "LISTEN_FDS=1", "LISTEN_FDNAMES=web")
	if got, want := c.rest(t), "error: activation: no socket is called \"http\": there is web\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func newTransport(t *testing.T) *http.Transport {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// A crowd that has been accepted and not yet been read when the drain begins: every
// one of them is answered, however long it takes to get to them.
func TestServeAnswersWhomItAccepted(t *testing.T) {
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })}
	d := newDrain(srv)
	d.moment = 0 // idle connections are given nothing
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }()
	const n = 20
	conns := make([]net.Conn, n)
	for i := range conns {
		if conns[i], err = net.Dial("tcp", ln.Addr().String()); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
	}
	for d.open.Load() < n {
		runtime.Gosched()
	}
	d.begin()
	ln.Close()
	<-ended
	finished := make(chan error, 1)
	go func() { finished <- d.finish() }()
	for i, c := range conns {
		fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
		if text, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(text), "hello") {
			t.Errorf("connection %d: %q, %v", i, text, err)
		}
	}
	if err := <-finished; err != nil {
		t.Error(err)
	}
}
