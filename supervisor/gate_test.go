package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A gateFixture is one unit "web" with a gate, and the file that says how it is.
type gateFixture struct {
	*fixture
	health string
}

func gateUnit(health, ready, more string) string {
	return fmt.Sprintf(`
[service]
role = gated TEST_HEALTH=%s
ready = %s
start = "boot"
%s
[socket.http]
listen = "tcp://127.0.0.1:0"
`, health, ready, more)
}

func newGateFixture(t *testing.T, health, ready, more string) *gateFixture {
	t.Helper()
	f := prepare(t)
	g := &gateFixture{f, filepath.Join(t.TempDir(), "health")}
	g.say(health)
	f.write("web", gateUnit(g.health, ready, more))
	f.start()
	return g
}

func (g *gateFixture) say(health string) {
	g.t.Helper()
	if err := os.WriteFile(g.health, []byte(health), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// awaitUnready waits until a starting run's gate has found that wrong.
func (g *gateFixture) awaitUnready(text string) {
	g.t.Helper()
	g.until("unready: "+text, func() bool {
		for _, in := range g.unit("web").Instances {
			for _, r := range in.Runs {
				if r.State == "starting" && strings.Contains(r.Unready, text) {
					return true
				}
			}
		}
		return false
	})
}

// quiet fails the test if somebody is still asked.
func (g *gateFixture) quiet() {
	g.t.Helper()
	err := g.s.ask(g.t.Context(), func() error {
		for _, r := range g.s.units["web"].runs {
			if r.gate != nil {
				return fmt.Errorf("%s is still asked", r.id)
			}
		}
		if len(g.s.checks) > 0 {
			return fmt.Errorf("%d checks run", len(g.s.checks))
		}
		return nil
	})
	if err != nil {
		g.t.Error(err)
	}
}

func TestGateAsksOverHTTPUntilItIsWell(t *testing.T) {
	g := newGateFixture(t, "503", `{ http = "/healthz?full=1", interval = "5ms" }`, "")
	g.awaitUnready("ready: GET /healthz?full=1: 503 Service Unavailable")
	if st := g.unit("web"); st.State != "starting" {
		t.Fatalf("it is %s", st.State)
	}
	g.say("204")
	g.awaitState("web", 1, "ready")
	g.quiet()
	if r := g.unit("web").Instances[0].Runs[0]; r.Unready != "" {
		t.Errorf("ready, and yet %q", r.Unready)
	}
	waitFor(t, "the first question", func() bool { return strings.Contains(g.out.String(), "asked 1: GET /healthz?full=1 sockd") })
}

func TestGateThatGetsNoAnswer(t *testing.T) {
	g := newGateFixture(t, "silent", `{ http = "/", interval = "5ms", timeout = "300ms" }`, "")
	g.awaitUnready("GET /: no answer within 300ms")
	g.say("301")
	g.awaitState("web", 1, "ready")
	g.quiet()
}

func TestGateConnects(t *testing.T) {
	g := newGateFixture(t, "wait", `{ tcp = true, interval = "5ms", timeout = "300ms" }`, "")
	g.awaitUnready("a connection was not accepted within 300ms")
	// It accepts on its other socket all the while.
	if _, err := ask("tcp", g.address("web", "http")); err != nil {
		t.Fatal(err)
	}
	if st := g.unit("web"); st.State != "starting" {
		t.Fatalf("it is %s", st.State)
	}
	g.say("accept")
	g.awaitState("web", 1, "ready")
	g.quiet()
}

func TestGateRunsACommand(t *testing.T) {
	dir := t.TempDir()
	script := `echo "about $SOCKD_UNIT@$SOCKD_INSTANCE.$SOCKD_GENERATION ${LISTEN_FDS-none} ${NOTIFY_SOCKET-none}"; kill -0 $SOCKD_PID || exit 9; test -e ` + dir + `/well || exit 7`
	g := newGateFixture(t, "", fmt.Sprintf(`{ command = ["/bin/sh", "-c", %q], interval = "5ms" }`, script), "")
	g.awaitUnready("ready: /bin/sh: exit status 7")
	if err := os.WriteFile(dir+"/well", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g.awaitState("web", 1, "ready")
	g.quiet()
	if !strings.Contains(g.out.String(), "about web@1.1 none none") {
		t.Errorf("output %q", g.out)
	}
	inv, err := g.keeper.Inventory()
	if err != nil || len(inv.Children) != 1 {
		t.Errorf("%d runs listed, %v", len(inv.Children), err)
	}
}

func TestGateCommandThatHangs(t *testing.T) {
	dir := t.TempDir()
	// It leaves another process, which must not outlive the try either.
	script := `echo $$ >>` + dir + `/pids; sleep 1000 & echo $! >>` + dir + `/pids; test -e ` + dir + `/well || wait`
	g := newGateFixture(t, "", fmt.Sprintf(`{ command = ["/bin/sh", "-c", %q], interval = "5ms", timeout = "500ms" }`, script), "")
	g.awaitUnready("/bin/sh: not finished within 500ms")
	if err := os.WriteFile(dir+"/well", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g.awaitState("web", 1, "ready")
	g.quiet()
	if n := aliveOf(t, dir+"/pids"); n > 0 {
		t.Errorf("%d processes of checks are left", n)
	}
	// A stop in the middle of a check ends it too.
	os.Remove(dir + "/well")
	os.Remove(dir + "/pids")
	g.say("")
	out := make(chan Outcome, 1)
	go func() {
		o, _ := verbs["restart"](g.s, t.Context(), errand{unit: "web", wait: true})
		out <- o
	}()
	waitFor(t, "a check", func() bool { return aliveOf(t, dir+"/pids") == 2 })
	g.do("stop", "web", Done)
	if n := aliveOf(t, dir+"/pids"); n > 0 {
		t.Errorf("%d processes of checks are left after stop", n)
	}
	<-out
	t.Logf("promise N8: no process of a check is left when stop returns")
}

// aliveOf counts the processes of a list that live.
func aliveOf(t *testing.T, list string) int {
	t.Helper()
	text, _ := os.ReadFile(list)
	n := 0
	for word := range strings.FieldsSeq(string(text)) {
		stat, err := os.ReadFile("/proc/" + word + "/stat")
		if i := strings.LastIndexByte(string(stat), ')'); err == nil && !strings.HasPrefix(string(stat)[i+1:], " Z") {
			n++
		}
	}
	return n
}

func TestGateAndARunThatDies(t *testing.T) {
	g := newGateFixture(t, "503", `{ http = "/", interval = "5ms" }`, `restart = "no"`)
	g.awaitUnready("503")
	kill(t, g.unit("web").Instances[0].Runs[0].Pid)
	g.awaitState("web", 1, "failed")
	g.quiet()
}

// The private socket comes after the unit's own and before what is stored.
func TestGateSocketHasItsPlace(t *testing.T) {
	f := newFixture(t, "web", `
[service]
role = keepsake TEST_SOCKETS=1
ready = { tcp = true }
fd_store_max = 4
restart = "always"
restart_delay = "1ms"
start = "boot"
[socket.http]
listen = "tcp://127.0.0.1:0"
`)
	at := f.address("web", "http")
	wantOrder(t, at, "list", "ready=socket")
	order(t, at, "memfd note hello")
	order(t, at, "exit 0")
	f.awaitState("web", 1, "exited")
	wantOrder(t, at, "list", "ready=socket note=hello")
	if st := f.unit("web"); st.State != "starting" { // it never accepts there
		t.Errorf("it is %s", st.State)
	}
}

// A run that is starting is asked as its unit's file says now.
func TestGateOfAReloadAsksWhoIsStarting(t *testing.T) {
	g := newGateFixture(t, "503", `{ http = "/healthz", interval = "1ms" }`, "")
	g.awaitUnready("503")
	g.write("web", gateUnit(g.health, `{ tcp = true, interval = "1ms" }`, ""))
	if err := g.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := g.awaitState("web", 1, "ready"); e.Gen != 1 {
		t.Errorf("generation %d is ready, not the one that was starting", e.Gen)
	}
}
