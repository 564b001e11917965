package units

import (
	"fmt"
	"net/netip"
	"strings"
)

// An endpoint is what the kernel compares when a socket is bound: one address of
// one socket, with the options that decide who may share it.
type endpoint struct {
	family  string // tcp, udp, or the Unix network
	ip      netip.Addr
	any     bool // no host: every address of the families below
	v4, v6  bool // which families it takes
	port    uint16
	path    string // Unix: the path or @name
	device  string
	addr    bool // SO_REUSEADDR
	reusing bool // SO_REUSEPORT
}

func (sock *Socket) endpoint(a Address) endpoint {
	if a.Unix() {
		e := endpoint{family: "unix", path: a.Address}
		if a.Path() == "" {
			e.family = a.Network // each type has abstract names of its own (unix_bind_abstract)
		}
		return e
	}
	ap := a.AddrPort()
	e := endpoint{
		family: a.Network[:3], ip: ap.Addr(), port: ap.Port(), device: sock.BindToDevice,
		addr:    a.Stream(),
		reusing: sock.PerInstance || sock.ReusePort,
	}
	if sock.ReuseAddr != nil {
		e.addr = *sock.ReuseAddr
	}
	e.any = !e.ip.IsValid() || e.ip.IsUnspecified()
	e.v4 = !strings.HasSuffix(a.Network, "6") && !(e.ip.Is6() && !e.any) && !(sock.IPv6Only && !e.ip.Is4())
	e.v6 = !strings.HasSuffix(a.Network, "4") && !e.ip.Is4()
	return e
}

// overlaps reports whether the kernel takes both for the same address: equal, or
// one without a host beside any other of its family. On Linux a wildcard and a
// specific address conflict like two equal ones (inet_rcv_saddr_equal).
func (e endpoint) overlaps(o endpoint) bool {
	switch {
	case e.family != o.family:
		return false
	case e.path != "":
		return e.path == o.path
	case e.port != o.port || e.port == 0:
		return false
	case e.device != "" && o.device != "" && e.device != o.device:
		return false
	case !(e.v4 && o.v4) && !(e.v6 && o.v6):
		return false
	}
	return e.any || o.any || e.ip == o.ip
}

// share reports whether the kernel lets both be bound though they overlap. TCP
// listeners need SO_REUSEPORT on both; SO_REUSEADDR is for leftovers of old
// connections. UDP sockets need either of the two, the same one on both. The
// user is the same: sockd binds all.
func (e endpoint) share(o endpoint) bool {
	return e.reusing && o.reusing || e.family == "udp" && e.addr && o.addr
}

// A claim is an endpoint with whose it is and where that is written.
type claim struct {
	endpoint
	src     *source
	sock    *Socket
	address Address
	spot    spot
}

// conflicts finds every address that cannot be bound because another is, and names
// both places. Each claim is reported once, against the first that is in its way.
func conflicts(sources []*source) Problems {
	var problems Problems
	var last claim
	for c, o := range overlapping(sources) {
		if c.share(o.endpoint) || c.src == last.src && c.spot == last.spot {
			continue
		}
		problems, last = append(problems, c.against(o)), c
	}
	return problems
}

// whose says where a claim stands, seen from another.
func (o claim) whose(c claim) string {
	whose := "unit " + o.src.unit.Name + ", socket " + o.sock.Name
	if o.src == c.src {
		whose = "socket " + o.sock.Name
	}
	return fmt.Sprintf("%s at %s:%d:%d", whose, o.src.file, o.spot.line, o.spot.col)
}

// against says that o is in c's way.
func (c claim) against(o claim) Problem {
	verb := "is taken by"
	if c.address != o.address {
		verb = "overlaps with " + o.address.String() + " of"
	}
	p := Problem{
		File: c.src.file, Line: c.spot.line, Col: c.spot.col,
		Key:  dotted("socket", c.sock.Name, "listen"),
		Text: fmt.Sprintf("%s %s %s", c.address, verb, o.whose(c)),
	}
	switch {
	case c.path != "":
	case c.family == "udp":
		p.Hint = "the kernel permits it only with reuse_addr = true in both, or reuse_port = true in both"
	case c.sock.PerInstance && o.sock.PerInstance:
	default:
		p.Hint = "the kernel permits it only with reuse_port = true in both"
	}
	return p
}
