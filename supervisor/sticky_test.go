package supervisor

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// The server of the quic tests does for any flow: it goes on at SIGTERM, and ends when a
// datagram says "leave".
var stickyUnit = strings.NewReplacer(`flows = "quic"`, `flows = "sticky"`, "step = 2", "step = 2\nstop_timeout = \"10m\"").Replace(quicUnit)

// A peer is one flow, and who has it.
type peer struct {
	net.Conn
	answer
}

// peers are so many new flows.
func peers(t *testing.T, address string, n int) (all []*peer) {
	t.Helper()
	for range n {
		c, err := net.Dial("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		all = append(all, &peer{c, askFlow(t, c)})
	}
	return all
}

// stickyFixture is a running unit with so many instances; it skips where no flow is routed.
func stickyFixture(t *testing.T, instances int) (f *fixture, address string) {
	t.Helper()
	if !routesFlows() {
		t.Skipf("flows are kept with eBPF only: %+v", probe())
	}
	f = newFixture(t, "web", fmt.Sprintf(stickyUnit, instances, ""))
	t.Cleanup(func() { f.s.Kill() }) // they have flows, and would not leave
	f.do("start", "web", Done)
	return f, f.address("web", "quic")
}

// draining are the pids of processes that were told to leave.
func (f *fixture) draining() (pids []int) {
	f.t.Helper()
	for _, in := range f.unit("web").Instances {
		for _, r := range in.Runs {
			if r.State == "draining" && r.Pid > 0 {
				pids = append(pids, r.Pid)
			}
		}
	}
	return pids
}

// settled waits until so many instances have one run each, of a generation after upto, and
// returns their pids.
func (f *fixture) settled(instances int, upto uint64) (pids []int) {
	f.t.Helper()
	f.until("each has one that is ready", func() bool {
		pids = nil
		for _, in := range f.unit("web").Instances {
			if in.State == "ready" && len(in.Runs) == 1 && in.Runs[0].Gen > upto && in.Runs[0].Pid > 0 {
				pids = append(pids, in.Runs[0].Pid)
			}
		}
		return len(pids) == instances
	})
	return pids
}

// Flows stay with their process as long as it lives, also while it leaves and another
// takes what is new, and then with their instance; the supervisor may die meanwhile.
func TestStickyFlowsStayWithWhoLeaves(t *testing.T) {
	f, address := stickyFixture(t, 4)
	var early, moved, asked, kept int
	ask := func(all []*peer, gone ...int) {
		t.Helper()
		for _, p := range all {
			asked++
			a := askFlow(t, p)
			switch {
			case a.instance != p.instance:
				moved++
				t.Errorf("a flow of %+v came to %+v", p.answer, a)
			case a != p.answer && !slices.Contains(gone, p.pid):
				early++
				t.Errorf("a flow of %+v, who lives, came to %+v", p.answer, a)
			}
			p.answer = a
		}
	}
	flows := peers(t, address, 400)
	for round := range 5 {
		upto := f.unit("web").LastGen
		done := make(chan Outcome, 1)
		go func(s *Supervisor) {
			out, _ := s.restartUnit(t.Context(), errand{unit: "web", wait: true})
			done <- out
		}(f.s)
		f.until("somebody drains", func() bool { return len(f.draining()) > 0 })
		if round == 2 {
			f.crash()
			ask(flows) // while nobody supervises
			f.start()
		}
		ask(flows)
		f.until("all drain", func() bool { return len(f.draining()) == 4 })
		leaving := f.draining()
		ask(flows)
		for _, p := range peers(t, address, 80) {
			if slices.Contains(leaving, p.pid) {
				t.Errorf("a new flow came to %+v, who leaves", p.answer)
			}
		}
		ask(flows)
		kept += len(flows)
		for _, pid := range leaving { // one after the other
			i := slices.IndexFunc(flows, func(p *peer) bool { return p.pid == pid })
			if i < 0 {
				t.Fatalf("none of 400 flows was with process %d", pid)
			}
			fmt.Fprint(flows[i], "leave")
			f.until("it has left", func() bool { return !slices.Contains(f.draining(), pid) })
			ask(flows, pid)
		}
		f.settled(4, upto)
		if round != 2 { // else who was waiting for it has died
			if out := <-done; out.Outcome != Done {
				t.Fatalf("%+v", out)
			}
		}
	}
	t.Logf("promise N3: 400 sticky udp flows over 5 rolling replacements of 4 siblings, the supervisor killed in one: %d datagrams, each answered, %d came to another instance; %d flows were with processes that left, %d datagrams of them came to a new one while the old one lived",
		asked, moved, kept, early)
}

// Many datagrams are on their way while processes leave that do not empty their sockets:
// each is answered, and by the flow's instance.
func TestStickyFlowsUnderLoad(t *testing.T) {
	needRaw(t)
	if !routesFlows() {
		t.Skipf("flows are kept with eBPF only: %+v", probe())
	}
	f := newFixture(t, "game", strings.Replace(fmt.Sprintf(game, `flows = "sticky"`), "overlap = false", "", 1))
	f.do("start", "game", Done)
	flows := peers(t, f.address("game", "game"), 200)
	asked, moved, killed := 0, 0, 0
	for round := range 5 {
		last := f.unit("game").LastGen
		go f.s.restartUnit(t.Context(), errand{unit: "game", wait: true})
		for over := false; !over; {
			over = true
			for _, in := range f.unit("game").Instances {
				if in.State != "ready" || len(in.Runs) != 1 || in.Runs[0].Gen <= last {
					over = false
				}
			}
			for _, p := range flows {
				fmt.Fprint(p, "?")
			}
			if round == 3 && killed < 2 && f.unit("game").LastGen > last { // it has begun
				killed++
				f.crash()
				f.start()
			}
			for _, p := range flows {
				a, line := answer{}, make([]byte, 100)
				p.SetDeadline(time.Now().Add(patience))
				n, err := p.Read(line)
				if err != nil {
					t.Fatalf("round %d, %d answered: %v", round, asked, err)
				}
				fmt.Sscanf(string(line[:n]), "%d %d %d", &a.instance, &a.gen, &a.pid)
				if asked++; a.instance != p.instance {
					moved++
					t.Errorf("a flow of %+v came to %+v", p.answer, a)
				}
			}
		}
	}
	t.Logf("promise N3: 200 sticky udp flows, all with a datagram on its way, while 4 siblings are replaced 5 times that leave at once, the supervisor killed %d times: %d datagrams, each answered, %d by another instance", killed, asked, moved)
}
