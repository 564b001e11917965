package supervisor

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// prove does a verb of web with a proof, by the control API.
func (f *fixture) prove(verb string) ProvenOutcome {
	f.t.Helper()
	status, text := f.curl("POST", "/v1/units/web/"+verb, nil)
	var out ProvenOutcome
	if err := json.Unmarshal([]byte(text), &out); status != 200 || err != nil || out.Proof == nil {
		f.t.Fatalf("%d %s (%v)", status, text, err)
	}
	return out
}

// steeredTo is how many connections have been sent to a unit's siblings.
func (f *fixture) steeredTo(unit string) (n uint64) {
	for _, k := range f.unit(unit).Sockets {
		if k.Steered != nil {
			n += *k.Steered
		}
	}
	return n
}

func TestProofOfARestartUnderLoad(t *testing.T) {
	f := newFixture(t, "web", fmt.Sprintf(siblings, "", 4, ""))
	f.do("start", "web", Done)
	c := gather(f.address("web", "http"), 4)
	waitFor(t, "the crowd", func() bool { return c.served.Load() > 100 })
	before := f.steeredTo("web")
	out := f.prove("restart?prove=true")
	during := f.steeredTo("web") - before // and a little before and after
	c.leave()
	p := out.Proof
	if out.Outcome.Outcome != Done || out.Unit != "web" {
		t.Errorf("%+v", out)
	}
	if p.Lost != 0 || c.failed.Load() != 0 || p.Waiting != 0 || p.Killed != 0 {
		t.Errorf("%d of the crowd failed (%v): %+v", c.failed.Load(), c.complaints(), p)
	}
	if wait, err := time.ParseDuration(p.LongestWait); err != nil || wait <= 0 {
		t.Errorf("longest wait %q", p.LongestWait)
	}
	if f.unit("web").Sockets[0].Steering == "ebpf" {
		if p.Counted != "steered" || p.Connections == 0 || p.Connections-p.Before > during {
			t.Errorf("%d came meanwhile: %+v", during, p)
		}
	}
	t.Logf("promise N2: a restart of 4 siblings under load: %s", p)
}

// slowness is how long a service of slowToStart takes once it may start: time for a
// proof to look at its queue.
const slowness = 300 * time.Millisecond

// slowToStart starts a service of which there must not be two, and returns what lets
// the next one go on.
func slowToStart(t *testing.T, more string) (f *fixture, let func()) {
	t.Helper()
	f = prepare(t)
	fifo := filepath.Join(f.dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	f.write("web", fmt.Sprintf(`
[service]
role = serve TEST_READY_WHEN=%s TEST_READY_AFTER=%v
ready = "notify"
start = "boot"
start_timeout = "0s"
overlap = false
[socket.http]
listen = "tcp://127.0.0.1:0"
%s
`, fifo, slowness, more))
	f.start()
	let = func() {
		t.Helper()
		if err := os.WriteFile(fifo, nil, 0); err != nil { // waits for who reads
			t.Fatal(err)
		}
	}
	let()
	f.do("start", "web", Done)
	return f, let
}

// Clients of a service that must not run twice wait, and the proof says how long.
func TestProofSaysHowLongClientsWaited(t *testing.T) {
	f, let := slowToStart(t, "")
	address := f.address("web", "http")
	answered := make(chan error, 1)
	outcome := make(chan ProvenOutcome, 1)
	go func() { outcome <- f.prove("restart?prove=true") }()
	f.awaitState("web", 1, "exited")
	go func() {
		_, err := ask("tcp", address)
		answered <- err
	}()
	waitFor(t, "the client to wait", func() bool { return f.unit("web").Sockets[0].Queued == 1 })
	let()
	out := <-outcome
	if err := <-answered; err != nil {
		t.Error(err)
	}
	p := out.Proof
	if p.Connections != 1 || p.Counted != "seen" || p.Lost != 0 || p.DeepestQueue != 1 {
		t.Errorf("%+v", p)
	}
	if wait, err := time.ParseDuration(p.LongestWait); err != nil || wait < slowness {
		t.Errorf("longest wait %q: %+v", p.LongestWait, p)
	}
	if p.AtMost == nil || *p.AtMost < 1 || p.Before != 0 {
		t.Errorf("%+v", p)
	}
}

// What does not fit into a queue is lost, and said.
func TestProofCountsWhatIsLost(t *testing.T) {
	f, let := slowToStart(t, "backlog = 2")
	address := f.address("web", "http")
	outcome := make(chan ProvenOutcome, 1)
	go func() { outcome <- f.prove("restart?prove=true") }()
	f.awaitState("web", 1, "exited")
	for range 20 {
		go func() {
			if c, err := net.DialTimeout("tcp", address, 100*time.Millisecond); err == nil {
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				c.Read(make([]byte, 1))
			}
		}()
	}
	waitFor(t, "clients to be turned away", func() bool { k := f.unit("web").Sockets[0]; return k.Queued == 3 && k.Drops > 0 })
	let()
	if p := (<-outcome).Proof; p.Lost == 0 || p.DeepestQueue != 3 {
		t.Errorf("20 clients, room for 3: %+v", p)
	}
}

func TestProofNeedsAnOutcome(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	if status, text := f.curl("POST", "/v1/units/web/restart?prove=true&wait=false", nil); status != 400 {
		t.Errorf("%d %s", status, text)
	}
	if status, text := f.curl("POST", "/v1/units/nobody/restart?prove=true", nil); status != 404 {
		t.Errorf("%d %s", status, text)
	}
}

func TestPauseSaysWhenQueuesAreFull(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	address := f.address("web", "http")
	outcome := make(chan Outcome, 1)
	go func() { outcome <- f.do("pause", "web", Done) }()
	f.until("paused", func() bool { return f.unit("web").State == "paused" })
	some := time.NewTicker(time.Millisecond) // far fewer than fit, in the time of a pause
	defer some.Stop()
	for {
		select {
		case out := <-outcome:
			if !strings.Contains(out.Because, "a second) the first queue is full in ") {
				t.Error(out)
			}
			if out := f.do("pause", "web", Done); !strings.HasSuffix(out.Because, "no queue grows") {
				t.Error(out)
			}
			f.do("stop", "web", Done)
			return
		case <-some.C:
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
	}
}

func TestFullIn(t *testing.T) {
	k := func(inode uint64, queued, backlog int) SocketStatus {
		return SocketStatus{Inode: inode, Queued: queued, Backlog: backlog}
	}
	for _, c := range []struct {
		name          string
		before, after []SocketStatus
		want          string
	}{
		{"nothing", nil, nil, "no queue grows"},
		{"it shrinks", []SocketStatus{k(1, 5, 10)}, []SocketStatus{k(1, 4, 10)}, "no queue grows"},
		{"the first of two", []SocketStatus{k(1, 0, 100), k(2, 0, 100)}, []SocketStatus{k(1, 10, 100), k(2, 20, 100)},
			"at the present rate (60 a second) the first queue is full in 2s"},
		{"of udp bytes are counted", nil, []SocketStatus{{Inode: 1, Network: "udp", Queued: 3000, Backlog: 9000}, k(2, 10, 100)},
			"at the present rate (20 a second, 6000 bytes a second) the first queue is full in 1s"},
		{"full", nil, []SocketStatus{k(1, 10, 10)}, "a queue is full: clients are turned away, and try again"},
	} {
		if got := fullIn(c.before, c.after, 500*time.Millisecond); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// Bytes of datagrams are no connections.
func TestRoom(t *testing.T) {
	tcp := SocketStatus{Network: "tcp", Queued: 3, Backlog: 10}
	udp := SocketStatus{Network: "udp6", Queued: 700, Backlog: 1000}
	for _, c := range []struct {
		name    string
		sockets []SocketStatus
		want    string
	}{
		{"connections", []SocketStatus{tcp, tcp}, "6 connections wait, 14 more fit"},
		{"datagrams", []SocketStatus{udp}, "700 bytes of datagrams wait, 300 more fit"},
		{"both", []SocketStatus{udp, tcp}, "3 connections wait, 7 more fit; 700 bytes of datagrams wait, 300 more fit"},
		{"no socket", nil, "0 connections wait, 0 more fit"},
	} {
		if got := room(UnitStatus{Sockets: c.sockets}); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
