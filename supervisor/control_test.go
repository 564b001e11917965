package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// curl speaks with the control socket as any HTTP client does.
func (f *fixture) curl(method, path string, body io.Reader) (status int, text string) {
	f.t.Helper()
	c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(f.dir, "run", ControlSocket))
		}}}
	req, err := http.NewRequest(method, "http://sockd"+path, body)
	if err != nil {
		f.t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestEveryRoute(t *testing.T) {
	f := newFixture(t, "web", onDemand, "held", "[socket.x]\nlisten = \"tcp://127.0.0.1:0\"\n")
	for _, c := range []struct {
		method, path string
		status       int
		contains     string
	}{
		{"GET", "/v1/units", 200, `"name":"web"`},
		{"GET", "/v1/units/web", 200, `"state":"idle"`},
		{"GET", "/v1/units/held", 200, `"state":"holding"`},
		{"GET", "/v1/units/nobody", 404, `no unit is called \"nobody\"`},
		{"GET", "/v1/units/..%2Fweb", 404, "no unit"},
		{"GET", "/v1/sockets", 200, `"network":"tcp"`},
		{"GET", "/v1/events?follow=false", 200, `"event":"idle"`},
		{"GET", "/healthz", 200, "ok"},
		{"GET", "/readyz", 200, "ready"},
		{"POST", "/v1/units/web/start", 200, `"outcome":"done"`},
		{"POST", "/v1/units/web/restart", 200, `"outcome":"done"`},
		{"POST", "/v1/units/web/stop", 200, `"outcome":"done"`},
		{"POST", "/v1/units/web/start?wait=false", 200, `"outcome":"asked"`},
		{"POST", "/v1/units/web/reload", 409, "has no reload_signal"},
		{"POST", "/v1/units/held/start", 409, "only holds sockets"},
		{"POST", "/v1/units/nobody/start", 404, "no unit"},
		{"POST", "/v1/units/web/explode", 404, `no verb is called \"explode\"`},
		{"POST", "/v1/units/web/start?timeout=soon", 400, "is no duration"},
		{"POST", "/v1/units/web/start?timeout=-1s", 400, "is no duration"},
		{"POST", "/v1/units/web/start?wait=maybe", 400, "neither true nor false"},
		{"POST", "/v1/units/web/scale?instances=0", 400, "is not in 1..1024"},
		{"POST", "/v1/units/web/scale?instances=many", 400, "is no number"},
		{"POST", "/v1/units/web/restart?canary=0", 400, "neither a number"},
		{"POST", "/v1/reload", 200, "done"},
		{"POST", "/v1/reload?wait=false", 200, "asked"},
		{"POST", "/v1/units", 405, "GET"},
		{"GET", "/v1/units/web/start", 405, "POST"},
		{"GET", "/nothing", 404, "/nothing"},
	} {
		status, text := f.curl(c.method, c.path, nil)
		if status != c.status || !strings.Contains(text, c.contains) {
			t.Errorf("%s %s: %d %.200s, want %d with %q", c.method, c.path, status, text, c.status, c.contains)
		}
		if status != 200 {
			var e APIError
			if json.Unmarshal([]byte(text), &e) != nil || e.Text == "" {
				t.Errorf("%s %s: %.200q is no JSON with an error", c.method, c.path, text)
			}
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	if status, text := f.curl("POST", "/v1/units/web/start", strings.NewReader("ignored")); status != 200 {
		t.Errorf("%d %s", status, text)
	}
	if status, text := f.curl("POST", "/v1/units/web/start", strings.NewReader(strings.Repeat("x", 1<<20))); status != 413 {
		t.Errorf("a megabyte: %d %s", status, text)
	}
}

// N9: slow clients and half requests are nobody else's business.
func TestSlowClientsDoNotDelayAGoodOne(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	path := filepath.Join(f.dir, "run", ControlSocket)
	const slow = 500
	beginnings := []string{"", "G", "GET /v1/units HTTP/1.1\r\nHost: x\r\n", "POST /v1/units/web/start HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n", "\x00\xff\r\n"}
	for i := range slow {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, beginnings[i%len(beginnings)])
	}
	client := NewClient(filepath.Join(f.dir, "run"))
	var slowest time.Duration
	for range 100 {
		began := time.Now()
		if _, err := client.Unit(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(began))
	}
	if slowest > patience {
		t.Errorf("the slowest answer took %v", slowest)
	}
	t.Logf("promise N9: %d slow clients, 100 answers to a good one, the slowest after %v", slow, slowest.Round(10*time.Microsecond))
}

func TestEventsAreFollowed(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	c, err := net.Dial("unix", filepath.Join(f.dir, "run", ControlSocket))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(c, "GET /v1/events HTTP/1.0\r\n\r\n")
	lines := bufio.NewScanner(c)
	next := func(what string) Event {
		for lines.Scan() {
			var e Event
			if json.Unmarshal(lines.Bytes(), &e) == nil && e.What == what {
				return e
			}
		}
		t.Fatalf("no event %s: %v", what, lines.Err())
		return Event{}
	}
	next("idle")
	a, err := ask("tcp", f.address("web", "http"))
	if err != nil {
		t.Fatal(err)
	}
	if e := next("ready"); e.Pid != a.pid || e.Unit != "web" || e.After == "" {
		t.Errorf("%+v", e)
	}
	f.do("stop", "web", Done)
	if e := next("exited"); e.Exit == nil || e.Exit.Pid != a.pid || e.Exit.Cause != "stop" {
		t.Errorf("%+v", e)
	}
}
