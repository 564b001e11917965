package supervisor

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const keeping = `
[service]
role = keepsake TEST_SOCKETS=2
ready = "notify"
restart = "always"
restart_delay = "10ms"
fd_store_max = 4
[socket.http]
listen = "tcp://127.0.0.1:0"
[socket.other]
listen = "tcp://127.0.0.1:0"
`

// storedNames are the names that status shows.
func (f *fixture) storedNames() []string { return f.unit("web").Instances[0].Stored }

// kill ends the run of web, once it is known to be ready, and waits until that has been
// heard of. A service may answer before the supervisor has heard that it runs.
func (f *fixture) kill() {
	f.t.Helper()
	pid := f.settled(1, 0)[0]
	kill(f.t, pid)
	f.await("the exit of the killed process", func(e Event) bool { return e.Exit != nil && e.Exit.Pid == pid })
}

// listening is a place to connect to.
func listening(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func TestStoreSurvivesItsService(t *testing.T) {
	f := newFixture(t, "web", keeping)
	at, far := f.address("web", "http"), listening(t)
	wantOrder(t, at, "list", "")
	wantOrder(t, at, "memfd memory remembered", "told")
	wantOrder(t, at, "dial conn "+far.Addr().String(), "told")
	wantOrder(t, at, "memfd - nameless", "told")
	c, err := far.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	const all = "memory=remembered conn=socket stored=nameless"
	rounds := 0
	check := func(what string) {
		t.Helper()
		rounds++
		if got := f.storedNames(); !slices.Equal(got, []string{"memory", "conn", "stored"}) {
			t.Fatalf("%s: status shows %q", what, got)
		}
		wantOrder(t, at, "list", all)
		wantOrder(t, at, fmt.Sprint("say 1 round-", rounds), "said <nil>")
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != fmt.Sprintf("round-%d\n", rounds) {
			t.Fatalf("%s: the connection brought %q, %v", what, line, err)
		}
	}
	for range 3 {
		f.kill()
		check("killed")
	}
	order(t, at, "exit 0")
	f.awaitState("web", 1, "exited")
	check("exited")
	f.do("restart", "web", Done)
	check("replaced")
	for range 3 {
		f.crash()
		f.start()
		f.kill()
		check("the supervisor crashed")
	}
	t.Logf("promise N1: 3 stored descriptors handed back in order %d times, over kills, exits, replacements and 3 crashes of the supervisor", rounds)
}

func TestStoreKeepsOrder(t *testing.T) {
	f := newFixture(t, "web", keeping)
	at := f.address("web", "http")
	for i := range 4 {
		wantOrder(t, at, fmt.Sprintf("memfd n%d %d", i, i), "told")
	}
	for range 2 { // each reload and each upgrade turns it around in systemd
		f.crash()
		f.start()
		if err := f.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.kill()
		wantOrder(t, at, "list", "n0=0 n1=1 n2=2 n3=3")
	}
	wantOrder(t, at, `send FDSTOREREMOVE=1\nFDNAME=n3 0`, "told")
	wantOrder(t, at, `send FDSTOREREMOVE=1\nFDNAME=n1 0`, "told")
	wantOrder(t, at, "memfd n4 4", "told")
	f.kill()
	wantOrder(t, at, "list", "n0=0 n2=2 n4=4")
}

func TestStoreRefuses(t *testing.T) {
	f := newFixture(t, "web", keeping)
	at := f.address("web", "http")
	wantOrder(t, at, `send FDSTORE=1\nFDNAME=a\nREADY=1 2`, "told")
	f.kill()
	wantOrder(t, at, "list", "a=x a=x")
	for _, row := range []struct{ name, order, log string }{
		{"the same twice", "again b 0", ""},
		{"one of its sockets", "listener b", ""},
		{"an epoll instance", "epoll b", "it is an epoll instance"},
		{"a device", "device b", "it is a device"},
		{"no descriptor", "send FDSTORE=1 0", "FDSTORE=1 came without a descriptor"},
		{"to forget without a name", "send FDSTOREREMOVE=1 1", "FDSTOREREMOVE=1 needs FDNAME"},
		{"to forget what is not there", `send FDSTOREREMOVE=1\nFDNAME=z 0`, ""},
		{"descriptors with another message", "send STATUS=hello 3", "3 descriptors closed"},
		{"nothing, when both keys come", `send FDSTORE=1\nFDSTOREREMOVE=1\nFDNAME=z 1`, "1 descriptors closed"},
	} {
		f.do("restart", "web", Done) // of many refusals to one run not all are told
		wantOrder(t, at, row.order, "told")
		if got := f.storedNames(); !slices.Equal(got, []string{"a", "a"}) || !strings.Contains(f.log.String(), row.log) {
			t.Fatalf("%s: stored %q; no %q in the log", row.name, got, row.log)
		}
	}
	f.do("restart", "web", Done)
	before := descriptors(t)
	for range 3 { // two of three are too many, each time
		wantOrder(t, at, `send FDSTORE=1\nFDNAME=c 5`, "told")
	}
	if got := f.storedNames(); !slices.Equal(got, []string{"a", "a", "c", "c"}) || !strings.Contains(f.log.String(), "the store is full (fd_store_max = 4)") {
		t.Fatalf("stored %q", got)
	}
	waitFor(t, "descriptors to be closed", func() bool { return descriptors(t) <= before+2 })
	wantOrder(t, at, `send FDSTOREREMOVE=1\nFDNAME=c 0`, "told")
	wantOrder(t, at, `send FDSTOREREMOVE=1\nFDNAME=a 0`, "told")
	if got := f.storedNames(); len(got) != 0 {
		t.Fatalf("stored %q", got)
	}
	wantOrder(t, at, `send FDSTORE=1\nFDNAME=a:b 1`, "told")
	if got := f.storedNames(); !slices.Equal(got, []string{"stored"}) {
		t.Fatalf("a wrong name became %q", got)
	}
}

// descriptors counts this process's, which is keeper and supervisor in one.
func descriptors(t *testing.T) int {
	t.Helper()
	names, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func TestStoreIsOffByDefault(t *testing.T) {
	f := newFixture(t, "web", strings.Replace(keeping, "fd_store_max = 4", "", 1))
	at := f.address("web", "http")
	wantOrder(t, at, "memfd memory x", "told")
	if got := f.storedNames(); len(got) != 0 || !strings.Contains(f.log.String(), "the unit has no fd_store_max") {
		t.Errorf("stored %q", got)
	}
}

func TestStoredHangsUp(t *testing.T) {
	for _, row := range []struct {
		name, env string
		stays     bool
	}{{"goes", "", false}, {"stays with FDPOLL=0", " TEST_POLL=0", true}} {
		t.Run(row.name, func(t *testing.T) {
			f := newFixture(t, "web", strings.Replace(keeping, "TEST_SOCKETS=2", "TEST_SOCKETS=2"+row.env, 1))
			at, far := f.address("web", "http"), listening(t)
			hangUp := func(name string) {
				t.Helper()
				wantOrder(t, at, "dial "+name+" "+far.Addr().String(), "told")
				c, err := far.Accept()
				if err != nil {
					t.Fatal(err)
				}
				c.(*net.TCPConn).SetLinger(0) // a reset is a hang-up in one step
				c.Close()
			}
			hangUp("one")
			if !row.stays {
				f.until("one to go", func() bool { return len(f.storedNames()) == 0 })
			}
			f.crash() // what hangs up while nobody supervises goes too
			f.start()
			hangUp("two")
			want := []string{"one", "two"}
			if !row.stays {
				want = nil
				f.until("two to go", func() bool { return len(f.storedNames()) == 0 })
			}
			f.kill()
			order(t, at, "list")
			if got := f.storedNames(); !slices.Equal(got, want) {
				t.Errorf("stored %q, want %q", got, want)
			}
		})
	}
}
