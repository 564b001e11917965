package activation

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// drained serves srv, has use talk to it and then drains it, giving idle connections
// that moment. It returns what the drain says, and calls after while it goes on.
func drained(t *testing.T, d *drain, moment time.Duration, use, after func(address string)) error {
	t.Helper()
	srv := d.srv
	d.moment = moment
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }()
	use(ln.Addr().String())
	d.begin()
	ln.Close()
	<-ended
	finished := make(chan error, 1)
	go func() { finished <- d.finish() }()
	after(ln.Addr().String())
	err = <-finished
	if open, unheard := d.open.Load(), d.unheard.Load(); err == nil && (open < 0 || unheard != 0) {
		t.Errorf("%d connections, %d of them unheard", open, unheard)
	}
	return err
}

func nothing(string) {}

// A client of HTTP/2 keeps its connection, also when it has nothing to ask: it is told
// to go, and the drain does not wait for the end of its time.
func TestDrainTellsIdleHTTP2(t *testing.T) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := newTransport(t)
	transport.Protocols = protocols
	srv := &http.Server{Handler: http.NotFoundHandler(), Protocols: protocols}
	err := drained(t, newDrain(srv), 0, func(address string) {
		resp, err := transport.RoundTrip(request(t, address))
		if err != nil || resp.ProtoMajor != 2 {
			t.Fatalf("%v, %v", resp, err)
		}
		resp.Body.Close()
	}, nothing)
	if err != nil {
		t.Error(err)
	}
}

// An answer without end is ended by who gives it: RegisterOnShutdown tells him, while
// there is time.
func TestDrainTellsStreams(t *testing.T) {
	down := make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		select {
		case <-down:
			fmt.Fprint(w, "the end")
		case <-r.Context().Done():
		}
	})}
	srv.RegisterOnShutdown(func() { close(down) })
	var body io.ReadCloser
	err := drained(t, newDrain(srv), 0, func(address string) {
		resp, err := newTransport(t).RoundTrip(request(t, address))
		if err != nil {
			t.Fatal(err)
		}
		body = resp.Body
	}, nothing)
	if err != nil {
		t.Error(err)
	}
	if text, err := io.ReadAll(body); string(text) != "the end" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	body.Close()
}

// What is registered is called also where nobody is there.
func TestDrainOfNobodyTellsToo(t *testing.T) {
	down := make(chan struct{})
	srv := &http.Server{}
	srv.RegisterOnShutdown(func() { close(down) })
	if err := drained(t, newDrain(srv), longWait, nothing, nothing); err != nil {
		t.Error(err)
	}
	select {
	case <-down:
	case <-limited(t).Done():
		t.Error("not called")
	}
}

// What does not end is cut off, and that is an error.
func TestDrainCutsOff(t *testing.T) {
	d := newDrain(&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})})
	d.limit = 10 * time.Millisecond
	var body io.ReadCloser
	err := drained(t, d, longWait, func(address string) {
		resp, err := newTransport(t).RoundTrip(request(t, address))
		if err != nil {
			t.Fatal(err)
		}
		body = resp.Body
	}, nothing)
	if want := "activation: requests unfinished after 10ms were cut off: context deadline exceeded"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := io.ReadAll(body); err == nil {
		t.Error("the answer ended well")
	}
	body.Close()
}

// A request that has been read is not lost before its handler has it, however long that
// takes: Shutdown, which would drop it, does not begin.
func TestDrainKeepsWhatWasJustRead(t *testing.T) {
	down := make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })}
	srv.RegisterOnShutdown(func() { close(down) })
	srv.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateActive { // read, and not looked at
			select {
			case <-down:
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	d := newDrain(srv)
	var c net.Conn
	err := drained(t, d, 0, func(address string) {
		var err error
		if c, err = net.Dial("tcp", address); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		for d.open.Load() == 0 {
			runtime.Gosched()
		}
	}, func(string) {
		fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
		if text, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(text), "hello") {
			t.Errorf("%q, %v", text, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// Hijacked connections are their handlers' business, as in net/http.
func TestDrainDoesNotWaitForTheHijacked(t *testing.T) {
	d := newDrain(&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprint(c, "mine\n")
	})})
	err := drained(t, d, longWait, func(address string) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if line, err := bufio.NewReader(c).ReadString('\n'); line != "mine\n" || err != nil {
			t.Fatalf("%q, %v", line, err)
		}
	}, nothing)
	if open := d.open.Load(); open != 0 || err != nil {
		t.Error(open, err)
	}
}

// A kept connection whose client asks once more while the drain is on is answered, and
// told that it was the last.
func TestDrainAnswersOnceMore(t *testing.T) {
	transport := newTransport(t)
	get := func(address string) (bool, error) {
		resp, err := transport.RoundTrip(request(t, address))
		if err != nil {
			return false, err
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp.Close, nil
	}
	srv := &http.Server{Handler: http.NotFoundHandler()}
	err := drained(t, newDrain(srv), longWait, func(address string) {
		if last, err := get(address); last || err != nil {
			t.Fatal(last, err)
		}
	}, func(address string) {
		if last, err := get(address); !last || err != nil {
			t.Error(last, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func request(t *testing.T, address string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(limited(t), "GET", "http://"+address, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}
