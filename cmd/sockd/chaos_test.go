package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

var (
	rounds    = flag.Int("rounds", 30, "TestChaos: how many supervisors die")
	chaosSeed = flag.Uint64("chaos-seed", 0, "TestChaos: what chance is made of; 0 picks one")
)

// chaosCare is what a keeper in the chaos test is told by its environment: each death
// counts as the first, since a thousand of them are wanted.
func chaosCare() supervisor.Care {
	if os.Getenv("CHAOS_CARE") == "" {
		return supervisor.Care{}
	}
	return supervisor.Care{Steady: time.Nanosecond}
}

// The test binary is a service, or a keeper that is impatient, before TestMain looks.
func init() {
	if os.Getenv("CHAOS_DIR") != "" {
		runChaosService()
	}
	care = chaosCare()
}

// chaosUnits: web is restarted by orders and killed; api is killed; door is stopped
// and started by orders; work writes much and ends by itself; calm is left alone and
// must live through it all.
const chaosUnits = `
-- web
start = "demand"
instances = 2
environment = { CHAOS_LINES = "20ms", CHAOS_PAIR = "1", CHAOS_DIR = @ }
[socket.http]
listen = "tcp://127.0.0.1:0"
-- api
start = "boot"
instances = 2
environment = { CHAOS_LINES = "10ms", CHAOS_DIR = @ }
[socket.http]
listen = "tcp://127.0.0.1:0"
per_instance = true
-- door
start = "demand"
environment = { CHAOS_DIR = @ }
[socket.http]
listen = "unix://./door.sock"
-- work
start = "boot"
instances = 2
restart = "always"
environment = { CHAOS_LINES = "4ms", CHAOS_LIFE = "3s", CHAOS_DIR = @ }
-- calm
start = "boot"
watchdog = "0s"
environment = { CHAOS_LINES = "10ms", CHAOS_DIR = @ }
[socket.http]
listen = ["tcp://127.0.0.1:0", "unix://./calm.sock"]
`

// A chaos is one run of the test.
type chaos struct {
	t      *testing.T
	dir    string
	rand   *rand.Rand
	keeper int
	crowd  *crowd
	watch  *watch
	record *recorder

	mu      sync.Mutex
	killed  map[int]bool // services
	deaths  map[string]int
	answers []time.Duration // from a supervisor's death to the first answer of the next
}

func (c *chaos) writeUnits() []string {
	exe, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	var files []string
	for _, text := range strings.Split(chaosUnits, "-- ")[1:] {
		name, text, _ := strings.Cut(text, "\n")
		text = fmt.Sprintf("[service]\nexec = [%s]\nready = \"notify\"\nrestart_delay = \"20ms\"\nrestart_delay_max = \"50ms\"\n", units.Quote(exe)) + text
		files = append(files, filepath.Base(write(c.t, c.dir, name+".toml", strings.ReplaceAll(text, "@", units.Quote(c.dir)))))
	}
	return files
}

func TestChaos(t *testing.T) {
	if testing.Short() {
		*rounds = min(*rounds, 10)
	}
	seed := *chaosSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with -chaos-seed %d", seed)
	c := &chaos{t: t, dir: t.TempDir(), rand: rand.New(rand.NewPCG(seed, seed)), crowd: &crowd{kills: map[string][]span{}},
		record: newRecorder(), killed: map[int]bool{}, deaths: map[string]int{}}
	cmd := command(t, c.dir, append([]string{"run", "--log-format", "json"}, c.writeUnits()...)...)
	cmd.Env = append(cmd.Env, "CHAOS_CARE=1")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.keeper = cmd.Process.Pid
	c.record.finished.Go(func() { c.record.output(stdout) })
	c.record.finished.Go(func() { c.record.log(stderr) })
	t.Cleanup(func() {
		cmd.Process.Kill()
		if t.Failed() {
			c.record.mu.Lock()
			defer c.record.mu.Unlock()
			t.Logf("sockd said at the end:\n%s", strings.Join(c.record.stderr[max(0, len(c.record.stderr)-150):], "\n"))
		}
	})
	c.watch = newWatch(c.keeper, c.dir)
	targets, calm := c.begin()
	descriptors := c.descriptors()
	c.storm(targets)
	c.settle(calm, descriptors)
	cmd.Process.Signal(syscall.SIGTERM)
	c.record.finished.Wait()
	if err := cmd.Wait(); err != nil {
		t.Errorf("sockd ended with %v", err)
	}
	c.end()
}

// begin waits until everything runs, and notes what must stay.
func (c *chaos) begin() (targets []target, calm int) {
	client := supervisor.NewClient(filepath.Join(c.dir, "run"))
	late := time.Now().Add(patience)
	for calm == 0 {
		all, err := client.Units(c.t.Context())
		ready := 0
		for _, u := range all {
			if u.State == "ready" || u.State == "idle" {
				ready++
			}
		}
		if err == nil && ready == 5 {
			for _, u := range all {
				for _, k := range u.Sockets {
					c.watch.held[fmt.Sprint(k.Inode)] = true
					network := "tcp"
					if k.Network == "unix" {
						network = "unix"
					}
					targets = append(targets, target{u.Name, network, k.Address})
				}
				if u.Name == "calm" {
					calm = u.Instances[0].Runs[0].Pid
				}
			}
		} else if time.Now().After(late) {
			c.t.Fatalf("not ready in time: %v, %+v\n%s", err, all, strings.Join(c.record.stderr, "\n"))
		} else {
			<-time.After(10 * time.Millisecond)
		}
	}
	return targets, calm
}

// storm lets supervisors and services die under load and orders.
func (c *chaos) storm(targets []target) {
	c.watch.start()
	quit := make(chan struct{})
	var others sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	o := &operator{w: c.watch, dir: c.dir, client: supervisor.NewClient(filepath.Join(c.dir, "run"))}
	others.Go(func() { o.run(ctx) })
	others.Go(func() { c.crowd.run(targets, 1000, quit) })
	chance := rand.New(rand.NewPCG(c.rand.Uint64(), 1))
	others.Go(func() { c.killServices(quit, chance) })
	for range *rounds {
		c.round()
	}
	cancel()
	close(quit)
	others.Wait()
	c.t.Logf("%d orders acknowledged, %d given again", o.orders, o.again)
}

// round ends one supervisor, at any moment of its life.
func (c *chaos) round() {
	calm := c.rand.IntN(5) > 0 // wait until it answers, then for a moment; else it dies while it begins
	if calm {
		if c.watch.get("/healthz", nil) != nil {
			return
		}
	}
	h := c.supervisor()
	defer h.close()
	<-time.After(time.Duration(c.rand.Int64N(int64(60 * time.Millisecond))))
	began := time.Now()
	how := "SIGKILL"
	switch c.rand.IntN(20) {
	case 0:
		how = "SIGSTOP"
		c.watch.mu.Lock()
		c.watch.stopped = append(c.watch.stopped, span{began, began.Add(patience)})
		c.watch.mu.Unlock()
		h.signal(unix.SIGSTOP)
	case 1:
		how = "SIGABRT" // a Go process ends as if by a panic
		h.signal(unix.SIGABRT)
	default:
		h.signal(unix.SIGKILL)
	}
	if !h.dead(patience) {
		c.t.Fatalf("supervisor %d did not die of %s", h.pid, how)
	}
	c.deaths[how]++
	if how == "SIGSTOP" {
		began = time.Now()
		defer func() {
			c.watch.get("/healthz", nil)
			c.watch.mu.Lock()
			defer c.watch.mu.Unlock()
			c.watch.stopped[len(c.watch.stopped)-1].to = time.Now()
		}()
	}
	if calm {
		if err := c.watch.get("/healthz", nil); err != nil {
			c.watch.violation("after %s: %v", how, err)
		}
		c.answers = append(c.answers, time.Since(began))
	}
}

// supervisor waits for one.
func (c *chaos) supervisor() handle { return supervisorOf(c.t, c.keeper) }

func supervisorOf(t testing.TB, keeper int) handle {
	is := func(p proc) bool { return p.supervisor && !p.zombie }
	for late := time.Now().Add(patience); time.Now().Before(late); <-time.After(time.Millisecond) {
		for _, p := range childrenOf(keeper) {
			if h, ok := hold(keeper, p.pid, is); ok && is(p) {
				return h
			} else if ok {
				h.close()
			}
		}
	}
	t.Fatal("no supervisor")
	return handle{}
}

// killServices kills one of web, api or work now and then.
func (c *chaos) killServices(quit <-chan struct{}, r *rand.Rand) {
	victim := func(p proc) bool { return p.service == "web" || p.service == "api" || p.service == "work" }
	for {
		select {
		case <-time.After(time.Duration(r.Int64N(int64(200 * time.Millisecond)))):
		case <-quit:
			return
		}
		all := childrenOf(c.keeper)
		if len(all) == 0 { // the list lacks some while others come and go
			continue
		}
		p := all[r.IntN(len(all))]
		h, ok := hold(c.keeper, p.pid, victim)
		if !ok {
			continue
		}
		c.mu.Lock()
		c.killed[p.pid] = true
		c.mu.Unlock()
		from := time.Now()
		h.signal(unix.SIGKILL)
		h.dead(patience)
		c.crowd.killed(p.service, span{from, time.Now()})
		h.close()
	}
}

// descriptors counts those of the keeper and of the supervisor when all is quiet.
func (c *chaos) descriptors() [2]int {
	h := c.supervisor()
	defer h.close()
	_, k := socketsIn(c.keeper)
	_, s := socketsIn(h.pid)
	return [2]int{k, s}
}

// settle waits for good weather and checks that everything is as it was.
func (c *chaos) settle(calm int, before [2]int) {
	c.watch.stop()
	targets, again := c.begin()
	eventually(c.t, "no zombie", func() bool {
		return !slices.ContainsFunc(childrenOf(c.keeper), func(p proc) bool { return p.zombie })
	})
	if again != calm {
		c.t.Errorf("calm is process %d, and was %d", again, calm)
	}
	for _, t := range targets {
		if err := ask(t); err != nil {
			c.t.Errorf("%+v in good weather: %v", t, err)
		}
	}
	const slack = 8 // runs come and go: web was idle before, and work has a run more or less
	after := c.descriptors()
	for late := time.Now().Add(patience); (after[0] > before[0]+slack || after[1] > before[1]+slack) && time.Now().Before(late); after = c.descriptors() {
		<-time.After(20 * time.Millisecond)
	}
	c.t.Logf("descriptors: keeper %d, then %d; supervisor %d, then %d", before[0], after[0], before[1], after[1])
	if after[0] > before[0]+slack || after[1] > before[1]+slack {
		c.t.Error("descriptors have leaked")
	}
}

// end judges what was seen, when nothing is left.
func (c *chaos) end() {
	t := c.t
	few := func(all []string) string { return strings.Join(all[:min(len(all), 20)], "\n\t") }
	fail := func(what string, all []string) {
		if len(all) > 0 {
			t.Errorf("%s (%d):\n\t%s", what, len(all), few(all))
		}
	}
	if text, err := os.ReadFile(filepath.Join(c.dir, "violations")); err == nil {
		t.Errorf("services say:\n%s", text)
	}
	w, l := c.watch, c.crowd
	l.judge()
	fail("seen from outside", w.bad)
	fail("connections lost", l.lost)
	led := c.record.judge(c.dir, c.killed, func(unit, cause string) bool {
		switch cause {
		case "stop":
			return true
		case "replaced":
			return unit == "web"
		case "by itself":
			return unit == "work"
		}
		return false
	})
	fail("processes without an exit record", led.missing)
	fail("processes with more than one", led.double)
	fail("processes that ended for no reason", led.unexpected)
	lines, missing := c.record.linesMissing(c.dir)
	fail("lines missing", missing)
	fail("output", c.record.bad)
	fail("errors of supervisors", c.record.errors)
	if c.record.twice > 0 {
		t.Errorf("%d lines came twice", c.record.twice)
	}
	var left []string
	for _, p := range bornIn(c.dir) {
		if q := look(p); q.service != "" {
			left = append(left, fmt.Sprintf("%+v", q))
		}
	}
	for _, pattern := range []string{"*.sock", "run"} {
		paths, _ := filepath.Glob(filepath.Join(c.dir, pattern))
		left = append(left, paths...)
	}
	fail("left over", left)
	t.Logf("deaths of supervisors: %v; %d services killed", c.deaths, len(c.killed))
	t.Logf("promise N1: %d sockets the same in %d looks over %d deaths of supervisors", len(w.held), w.looks, *rounds)
	t.Logf("promise N2: %d connections served, %d lost, %d cut with a killed service that may have accepted them; longest %v", l.served.Load(), len(l.lost), l.cut.Load(), l.longest.Round(time.Millisecond))
	t.Logf("promise N4: %d processes, %d without an exit record, %d with two", led.processes, len(led.missing), len(led.double))
	t.Logf("promise N5: %d processes, none twice in its place, %d ended for no reason", led.processes, len(led.unexpected))
	t.Logf("promise N6: %d lines, %d missing, %d twice over %d deaths of supervisors", lines, len(missing), c.record.twice, *rounds)
	t.Logf("the longest that a zombie was seen: %v", w.zombie.Round(time.Millisecond))
	t.Logf("promise N8: nothing left but %d things", len(left))
	t.Logf("control while a supervisor was stopped, until it was killed: %s", spread(w.waited))
	t.Logf("promise N9: control %s; asked again %d times; next supervisor answers: %s", spread(w.asked), w.again, spread(c.answers))
}
