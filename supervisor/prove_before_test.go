package supervisor

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stopAllRuns stands every process of web still: it accepts nobody, and goes on living.
func (f *fixture) stopAllRuns() {
	f.t.Helper()
	for _, in := range f.unit("web").Instances {
		for _, r := range in.Runs {
			if err := unix.Kill(r.Pid, unix.SIGSTOP); err != nil {
				f.t.Fatal(err)
			}
			waitFor(f.t, "it stands still", func() bool {
				tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", r.Pid))
				return !slices.ContainsFunc(tasks, func(task string) bool {
					text, _ := os.ReadFile(task)
					return !strings.Contains(string(text), ") T ")
				})
			})
		}
	}
}

// Who waits already when a proof begins has waited since he came, and was served if he
// was, though nobody has come since.
func TestProofCountsWhoWaitedBefore(t *testing.T) {
	alone := strings.Replace(siblings, "per_instance = true\n", "", 1)
	counted := 0
	for _, c := range []struct {
		name, level, unit, listen string
		known                     bool // since when they wait
	}{
		{"siblings", "", siblings, "tcp://127.0.0.1:0", true},
		{"siblings that nobody steers", "hash", siblings, "tcp://127.0.0.1:0", true},
		{"a shared socket", "", alone, "tcp://127.0.0.1:0", true},
		{"IPv4 to IPv6", "", alone, "tcp://:0", true},
		{"Unix", "", alone, "unix:///%s/web.sock", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.level != "" {
				t.Setenv(levelVariable, c.level)
			}
			f := prepare(t)
			text := fmt.Sprintf(c.unit, "", 2, `stop_timeout = "100ms"`)
			listen := strings.Replace(c.listen, "/%s", f.dir, 1)
			f.write("web", strings.Replace(text, "tcp://127.0.0.1:0", listen, 1))
			f.start()
			f.do("start", "web", Done)
			f.stopAllRuns()
			k := f.unit("web").Sockets[0]
			network, address := k.Network, k.Address
			if _, port, err := net.SplitHostPort(address); err == nil {
				network, address = "tcp4", "127.0.0.1:"+port
			}
			const callers = 5
			var conns []net.Conn
			for range callers {
				conn, err := net.DialTimeout(network, address, patience)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				conns = append(conns, conn)
			}
			waitFor(t, "all to be in queues", func() bool {
				n := 0
				for _, k := range f.unit("web").Sockets {
					n += k.Queued
				}
				return n == callers
			})
			dialed := time.Now()
			<-time.After(slowness) // what is awaited is that nobody accepts them
			waited := time.Since(dialed)
			p := f.prove("restart?prove=true").Proof
			for _, conn := range conns {
				conn.SetDeadline(time.Now().Add(patience))
				if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
					t.Error(err)
				}
			}
			longest, err := time.ParseDuration(p.LongestWait)
			if p.Before != callers || p.Connections < callers || p.Waiting != 0 || err != nil {
				t.Errorf("%d have waited: %+v", callers, p)
			}
			// The kernel's clock of connections may be late where a virtual processor stands still.
			if c.known && (p.AtLeast || longest < waited/2) {
				t.Errorf("they waited for %v: %s", waited, p)
			}
			if !c.known && (!p.AtLeast || !strings.HasSuffix(p.String(), "; 5 waited already, at least since it began")) {
				t.Errorf("nobody knows how long they waited: %s", p)
			}
			if p.AtMost != nil && *p.AtMost < callers {
				t.Errorf("at most %d, and %d were served", *p.AtMost, callers)
			}
			t.Logf("%d had waited %v: %s", callers, waited.Round(time.Millisecond), p)
			counted += int(p.Before)
		})
	}
	t.Logf("promise N2: restarts of services that stood still: %d connections had waited before, all counted and served", counted)
}
