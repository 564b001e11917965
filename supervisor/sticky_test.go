package supervisor

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
)

// The server of the quic tests does for any flow: it goes on at SIGTERM, and ends when a
// datagram says "leave".
var stickyUnit = strings.Replace(quicUnit, `flows = "quic"`, `flows = "sticky"`, 1)

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
			if r.State == "draining" {
				pids = append(pids, r.Pid)
			}
		}
	}
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
		for left := 0; left < 4; { // two at a time
			f.until("two drain", func() bool { return len(f.draining()) == 2 })
			leaving := f.draining()
			if round == 2 && left == 0 {
				f.crash()
				ask(flows) // while nobody supervises
				f.start()
			}
			ask(flows)
			for _, p := range peers(t, address, 40) {
				if slices.Contains(leaving, p.pid) {
					t.Errorf("a new flow came to %+v, who leaves", p.answer)
				}
			}
			for _, pid := range leaving {
				i := slices.IndexFunc(flows, func(p *peer) bool { return p.pid == pid })
				if i < 0 {
					t.Fatalf("none of 400 flows was with process %d", pid)
				}
				for _, p := range flows {
					if p.pid == pid {
						kept++
					}
				}
				fmt.Fprint(flows[i], "leave")
			}
			f.until("they have left", func() bool {
				return !slices.ContainsFunc(f.draining(), func(pid int) bool { return slices.Contains(leaving, pid) })
			})
			ask(flows, leaving...)
			left += 2
		}
		f.until("all are new", func() bool {
			for _, in := range f.unit("web").Instances {
				if in.State != "ready" || len(in.Runs) != 1 || in.Runs[0].Gen <= upto {
					return false
				}
			}
			return true
		})
		if round != 2 { // else who was waiting for it has died
			if out := <-done; out.Outcome != Done {
				t.Fatalf("%+v", out)
			}
		}
	}
	t.Logf("promise N3: 400 sticky udp flows over 5 rolling replacements of 4 siblings, the supervisor killed in one: %d datagrams, each answered, %d came to another instance; %d flows were with processes that left, %d datagrams of them came to a new one while the old one lived",
		asked, moved, kept, early)
}
