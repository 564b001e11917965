package units

import (
	"net/netip"
	"slices"
	"strings"
)

// rules checks what holds across keys, and sets the defaults that depend on them.
func (s *source) rules(service, sockets *node) {
	u := s.unit
	switch {
	case service == nil && sockets == nil && len(s.problems) > 0:
		return // a misspelt table most likely
	case service == nil && sockets == nil:
		s.add(0, "", &fault{"the unit has neither a service nor a socket", "write [service] with exec, or [socket.NAME] with listen"})
		return
	case sockets != nil && sockets.shape == table && len(sockets.kids) == 0:
		s.add(sockets.at, "socket", wrong("no socket is in it").write("[socket.NAME] with listen"))
	}
	if u.Service != nil {
		s.serviceRules(service, sockets != nil)
	}
	for i := range u.Sockets {
		s.socketRules(&u.Sockets[i], sockets.kid(u.Sockets[i].Name))
	}
	s.descriptorNames(sockets)
}

func (s *source) serviceRules(n *node, hasSockets bool) {
	sv := s.unit.Service
	if s.set["service.exec"] == nil {
		s.add(n.at, "service.exec", &fault{"is missing", "leave [service] out if the unit only holds sockets"})
	}
	switch {
	case sv.Start == "" && hasSockets:
		sv.Start = Demand
	case sv.Start == "":
		sv.Start = Boot
	case sv.Start == Demand && !hasSockets:
		s.add(s.set["service.start"].value, "service.start", wrong("nobody can demand it: the unit has no socket").write(`"boot"`))
	}
	if sv.RestartDelay > sv.RestartDelayMax {
		at, other := "service.restart_delay", "service.restart_delay_max"
		text := formatDuration(sv.RestartDelay) + " is more than restart_delay_max, which is " + formatDuration(sv.RestartDelayMax)
		if s.set[at] == nil {
			at, other = other, at
			text = formatDuration(sv.RestartDelayMax) + " is less than restart_delay, which is " + formatDuration(sv.RestartDelay)
		}
		f := wrong("%s", text)
		if s.set[other] == nil {
			f.hint = "set " + strings.TrimPrefix(other, "service.") + " too"
		}
		s.add(s.set[at].value, at, f)
	}
	if n := s.set["service.overlap_time"]; n != nil && !sv.Overlap {
		s.add(n.at, "service.overlap_time", wrong("the old process leaves before the new one comes").write("overlap = true, or leave this out"))
	}
	if n := s.set["service.fd_store_preserve"]; n != nil && sv.FDStoreMax == 0 && s.set["service.fd_store_max"] == nil {
		s.add(n.at, "service.fd_store_preserve", wrong("nothing is stored").write("fd_store_max too, how many descriptors at most"))
	}
	if sv.Gate.Private() && slices.ContainsFunc(s.unit.Sockets, func(k Socket) bool { return k.Name == ReadySocket }) {
		s.add(s.set["service.ready"].value, "service.ready", &fault{"its socket would have the name of [socket." + ReadySocket + "]", "give that one another name"})
	}
	if n := s.set["service.non_blocking"]; n != nil && !hasSockets {
		s.add(n.at, "service.non_blocking", wrong("the unit has no socket"))
	}
}

func (s *source) socketRules(sock *Socket, n *node) {
	path := dotted("socket", sock.Name)
	if s.set[path+".listen"] == nil {
		s.add(n.at, path+".listen", wrong("is missing").write(`one such as listen = ":8080"`))
	}
	if len(sock.Listen) == 0 {
		return // said already; nothing can be held against it
	}
	for _, k := range socketKeys() {
		set := s.set[path+"."+k.name]
		if set == nil || k.needs == toAll {
			continue
		}
		fits := 0
		for _, a := range sock.Listen {
			if a.takes(k.needs) {
				fits++
			}
		}
		if fits == 0 {
			s.add(set.at, path+"."+k.name, wrong("is for %s addresses; none is here", k.needs))
		}
	}
	for i, a := range sock.Listen {
		s.addressRules(sock, path, i, a)
	}
	s.flowRules(sock, path)
	if sock.PerInstance && s.unit.Service == nil {
		s.add(s.set[path+".per_instance"].at, path+".per_instance", wrong("the unit has no service, so no instances"))
	}
}

// flowRules: flows are kept where sockd chooses between instances, and nowhere else.
func (s *source) flowRules(sock *Socket, path string) {
	for _, name := range []string{"flows_timeout", "flows_max"} {
		if n := s.set[path+"."+name]; n != nil && s.set[path+".flows"] == nil {
			s.add(n.at, path+"."+name, wrong("no flow is kept").write(`flows = "sticky" too`))
		}
	}
	n := s.set[path+".flows"]
	switch {
	case n == nil:
	case !sock.PerInstance && s.set[path+".per_instance"] == nil:
		s.add(n.at, path+".flows", wrong("all instances share one socket: each takes what it can").write("per_instance = true too"))
	case !sock.PerInstance:
		s.add(n.at, path+".flows", wrong("all instances share one socket: each takes what it can"))
	case sock.ReusePort:
		s.add(n.at, path+".flows", &fault{"sockd does not choose where processes outside it may join", "leave reuse_port out"})
	case s.unit.Service != nil && s.unit.Service.Instances > MaxFlowsInstances:
		s.add(n.at, path+".flows", wrong("%d instances are more than the %d that can have flows", s.unit.Service.Instances, MaxFlowsInstances))
	}
}

func (s *source) addressRules(sock *Socket, path string, i int, a Address) {
	at := s.set[path+".listen"]
	if at.shape == array {
		at = at.kids[i]
	}
	for _, k := range []struct {
		on   bool
		name string
	}{{sock.PerInstance, "per_instance"}, {sock.ReusePort, "reuse_port"}} {
		// One misfit among fitting addresses; where none fits, that has been said.
		if k.on && a.Unix() && len(sock.Listen) > 1 && !allUnix(sock.Listen) {
			s.add(at.value, path+".listen", &fault{a.String() + " cannot have " + k.name, "give it a [socket.NAME] of its own"})
		}
	}
	ip := a.AddrPort().Addr()
	if ip.Is6() && ip.IsLinkLocalUnicast() && sock.BindToDevice == "" {
		s.add(at.value, path+".listen", wrong("%s is link-local: it needs a device", ip).write(`bind_to_device = "eth0"`))
	}
	if ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) && a.Stream() || ip.IsMulticast() && a.Stream() {
		s.add(at.value, path+".listen", wrong("%s is not an address of one machine: connections cannot come to it", ip).write(`"udp://%s"`, a.Address))
	}
}

func allUnix(list []Address) bool {
	for _, a := range list {
		if !a.Unix() {
			return false
		}
	}
	return true
}

// descriptorNames refuses a socket called http@2 beside a per-instance http: what
// is held of the two would have one name.
func (s *source) descriptorNames(sockets *node) {
	for _, sock := range s.unit.Sockets {
		i := strings.LastIndexByte(sock.Name, '@')
		if i < 0 || !isDigits(sock.Name[i+1:]) {
			continue
		}
		for _, other := range s.unit.Sockets {
			if other.Name == sock.Name[:i] && other.PerInstance {
				s.add(sockets.kid(sock.Name).at, dotted("socket", sock.Name), wrong("is also the name of an instance's socket of %s", dotted("socket", other.Name)))
			}
		}
	}
}
