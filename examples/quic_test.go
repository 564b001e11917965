package examples

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestQUIC: connections whose client's address changes with each packet stay with their
// process while both are replaced.
func TestQUIC(t *testing.T) {
	p := newPlace(t, "quic")
	sockd := p.run(t, "quic.toml")
	if flows := p.flows(t, "quic"); flows != "quic" {
		p.finish(t, sockd)
		t.Skipf("flows are %s: connection ids are not routed here, it needs eBPF", flows)
	}
	out := p.shell(t, p.client(t)[0])
	var connections, packets, processes, leaving, astray int
	lines := strings.SplitAfter(out, "\n")
	if len(lines) < 4 {
		t.Fatalf("got %q", out)
	}
	_, err := fmt.Sscanf(strings.Join(lines[len(lines)-4:], ""), "%d connections, %d packets, each from another address\n%d processes; %d packets came to one that was leaving\n%d packets came to another process than their connection\n",
		&connections, &packets, &processes, &leaving, &astray)
	if err != nil || !strings.Contains(out, "\nquic: restarted\n") {
		t.Fatalf("%v in\n%s", err, out)
	}
	if processes != 4 || connections < 21 || leaving == 0 || astray != 0 {
		t.Errorf("got\n%s", out)
	}
	t.Logf("promise N3: the example's %d QUIC connections, %d packets, each from another address, %d of them to a process that was leaving: %d to another process than their connection's", connections, packets, leaving, astray)
	p.finish(t, sockd)
}

// flows says whether the flows of a unit are kept.
func (p *place) flows(t *testing.T, unit string) string {
	t.Helper()
	out, err := p.command("bin/sockd", "sockets", "-o", "json", unit).Output()
	var all []struct{ Flows string }
	if err == nil {
		err = json.Unmarshal(out, &all)
	}
	if err != nil || len(all) == 0 {
		t.Fatalf("sockets: %v: %s", err, out)
	}
	return all[0].Flows
}
