package supervisor

import (
	"fmt"
	"strings"

	"github.com/sockd/sockd/supervisor/internal/steer"
	"github.com/sockd/sockd/units"
)

// findFlows is about units that want flows kept, where they cannot be, or where what a
// process leaves unread cannot be brought to the next one, as mayBring says.
func findFlows(set *units.Set, r steer.Report, mayBring error) []Finding {
	if set == nil {
		return nil
	}
	var asking []string
	for _, u := range set.Units {
		for _, k := range u.Sockets {
			if k.Flows != "" {
				asking = append(asking, fmt.Sprintf("%s of unit %s asks for flows = %q", k.Name, u.Name, k.Flows))
			}
		}
	}
	f := Finding{Subject: "flows", Found: strings.Join(asking, ", ")}
	switch {
	case asking == nil || r.Best == steer.EBPF && mayBring == nil:
		return nil
	case r.Best != steer.EBPF:
		f.Follows = "flows are not kept: a peer, and a connection whose client changes its address, may come to another process when processes come and go"
		f.Remedy = "have steering by eBPF"
	default:
		f.Found += "; " + errnoText(mayBring)
		f.Follows = "datagrams that a process has not read when it leaves wait for the next but one"
		f.Remedy = "CAP_NET_RAW; for an ordinary user: setcap cap_bpf,cap_net_raw+ep on the file of sockd"
	}
	return []Finding{f}
}
