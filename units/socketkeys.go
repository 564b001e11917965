package units

import (
	"strings"
	"sync"
	"time"
)

// applies says which addresses a key is for.
type applies string

const (
	toAll    applies = ""
	toTCP    applies = "TCP"
	toUDP    applies = "UDP"
	toStream applies = "stream"
	toIP     applies = "TCP and UDP"
	toIPv6   applies = "IPv6"
	toPath   applies = "Unix path"
)

func (a Address) takes(to applies) bool {
	switch to {
	case toTCP:
		return strings.HasPrefix(a.Network, "tcp")
	case toUDP:
		return strings.HasPrefix(a.Network, "udp")
	case toStream:
		return a.Stream()
	case toIP:
		return !a.Unix()
	case toIPv6:
		ip := a.AddrPort().Addr()
		return !a.Unix() && !strings.HasSuffix(a.Network, "4") && !ip.Is4()
	case toPath:
		return a.Path() != ""
	}
	return true
}

var socketKeys = sync.OnceValue(func() []key[Socket] {
	keys := []key[Socket]{
		{keyInfo{name: "listen", kind: addresses, systemd: "ListenStream= ListenDatagram= ListenSequentialPacket=", fallback: "required",
			meaning: "One address or an array: `tcp:// tcp4:// tcp6:// udp:// udp4:// udp6://` with `HOST:PORT`, `unix:// unixgram:// unixpacket://` with a path or an abstract `@name`. `\":8080\"` and `\"8080\"` mean `tcp://:8080`, which is IPv6 and IPv4. Port 0 takes a free one"},
			func(s *Socket) any { return &s.Listen }},
		{keyInfo{name: "per_instance", kind: boolean, needs: toIP,
			meaning: "Each instance has a `SO_REUSEPORT` socket of its own; otherwise all share one"},
			func(s *Socket) any { return &s.PerInstance }},
		{keyInfo{name: "flows", kind: words(Sticky, QUIC), needs: toUDP, fallback: "off",
			meaning: "With `per_instance`: `sticky` keeps the datagrams of one peer (address and port) with the process that had its first one as long as that lives, also while [it leaves](services.md#udp-flows), and then with its instance, also while that is down and while others come and go; for that an instance has two sockets. Needs steering by eBPF; without it a warning says so, and flows move when instances come and go. `quic` keeps each QUIC connection with the process that has it, for services that begin their connection ids [as they are told](services.md#quic)"},
			func(s *Socket) any { return &s.Flows }},
		{keyInfo{name: "flows_timeout", kind: duration, needs: toUDP, min: int64(time.Second), max: longest, fallback: "`\"2m\"`",
			meaning: "How long a silent flow is remembered; rounded up to units of 1.07 s"},
			func(s *Socket) any { return &s.FlowsTimeout }},
		{keyInfo{name: "flows_max", kind: integer, needs: toUDP, min: 1, max: 1 << 22, fallback: "65536",
			meaning: "How many flows are remembered, at about 100 bytes of kernel memory each; the least recently used is forgotten first"},
			func(s *Socket) any { return &s.FlowsMax }},
		{keyInfo{name: "reuse_port", kind: boolean, systemd: "ReusePort=", needs: toIP,
			meaning: "Let processes outside sockd, and other sockets that say so too, join with `SO_REUSEPORT` (same user only)"},
			func(s *Socket) any { return &s.ReusePort }},
		{keyInfo{name: "reuse_addr", kind: boolean, needs: toIP, option: true, fallback: "`true` for TCP, `false` for UDP",
			meaning: "`SO_REUSEADDR`. On UDP any user can then take the port's datagrams: for receivers of multicast"},
			func(s *Socket) any { return &s.ReuseAddr }},
		{keyInfo{name: "non_blocking", kind: boolean, systemd: "NonBlocking=",
			meaning: "Hand the socket over with `O_NONBLOCK` switched on"},
			func(s *Socket) any { return &s.NonBlocking }},
		{keyInfo{name: "backlog", kind: integer, systemd: "Backlog=", needs: toStream, min: 1, max: 65535, fallback: "the system's maximum",
			meaning: "How many connections may wait; the system's maximum caps it"},
			func(s *Socket) any { return &s.Backlog }},
		{keyInfo{name: "ipv6_only", kind: boolean, systemd: "BindIPv6Only=", needs: toIPv6,
			meaning: "No IPv4 on an IPv6 address without a host. `tcp6://` and `udp6://` never take IPv4"},
			func(s *Socket) any { return &s.IPv6Only }},
		{keyInfo{name: "free_bind", kind: boolean, systemd: "FreeBind=", needs: toIP, option: true,
			meaning: "Bind an address the machine does not have yet"},
			func(s *Socket) any { return &s.FreeBind }},
		{keyInfo{name: "transparent", kind: boolean, systemd: "Transparent=", needs: toIP, option: true,
			meaning: "Bind addresses of others, for a transparent proxy. Needs a privilege"},
			func(s *Socket) any { return &s.Transparent }},
		{keyInfo{name: "bind_to_device", kind: device, systemd: "BindToDevice=", needs: toIP, option: true, fallback: "off",
			meaning: "Only traffic of this network device"},
			func(s *Socket) any { return &s.BindToDevice }},
		{keyInfo{name: "mark", kind: integer, systemd: "Mark=", max: 1<<32 - 1, option: true, fallback: "the system's",
			meaning: "`SO_MARK`, for policy routing. Needs a privilege"},
			func(s *Socket) any { return &s.Mark }},
		{keyInfo{name: "priority", kind: integer, systemd: "Priority=", max: maxInt31, option: true, fallback: "the system's",
			meaning: "`SO_PRIORITY`; above 6 needs a privilege. Without it `ip_tos` sets it too"},
			func(s *Socket) any { return &s.Priority }},
		{keyInfo{name: "receive_buffer", kind: size, systemd: "ReceiveBuffer=", min: 1, max: maxBuffer, option: true, fallback: "the system's",
			meaning: "`SO_RCVBUF`. For UDP: what is kept while nobody reads"},
			func(s *Socket) any { return &s.ReceiveBuffer }},
		{keyInfo{name: "send_buffer", kind: size, systemd: "SendBuffer=", min: 1, max: maxBuffer, option: true, fallback: "the system's",
			meaning: "`SO_SNDBUF`"},
			func(s *Socket) any { return &s.SendBuffer }},
		{keyInfo{name: "keep_alive", kind: boolean, systemd: "KeepAlive=", needs: toTCP, option: true,
			meaning: "`SO_KEEPALIVE` on the connections"},
			func(s *Socket) any { return &s.KeepAlive }},
		{keyInfo{name: "no_delay", kind: boolean, systemd: "NoDelay=", needs: toTCP, option: true,
			meaning: "`TCP_NODELAY` on the connections"},
			func(s *Socket) any { return &s.NoDelay }},
		{keyInfo{name: "defer_accept", kind: duration, systemd: "DeferAcceptSec=", needs: toTCP, max: int64(time.Hour), option: true, fallback: "off",
			meaning: "Wake the service only when data has arrived. Rounded up to whole seconds; not where the server speaks first"},
			func(s *Socket) any { return &s.DeferAccept }},
		{keyInfo{name: "fast_open", kind: integer, needs: toTCP, max: maxInt31, option: true, fallback: "off",
			meaning: "`TCP_FASTOPEN`: how many such requests may wait"},
			func(s *Socket) any { return &s.FastOpen }},
		{keyInfo{name: "ip_tos", kind: integer, systemd: "IPTOS=", needs: toIP, max: 255, option: true, fallback: "the system's",
			meaning: "Type of service, or traffic class on IPv6"},
			func(s *Socket) any { return &s.IPTOS }},
		{keyInfo{name: "ip_ttl", kind: integer, systemd: "IPTTL=", needs: toIP, min: 1, max: 255, option: true, fallback: "the system's",
			meaning: "Time to live, or hop limit on IPv6"},
			func(s *Socket) any { return &s.IPTTL }},
		{keyInfo{name: "mode", kind: mode, systemd: "SocketMode=", needs: toPath,
			meaning: "Permission bits of the path"},
			func(s *Socket) any { return &s.Mode }},
		{keyInfo{name: "user", kind: owner, systemd: "SocketUser=", needs: toPath, option: true, fallback: "sockd's own",
			meaning: "Owner of the path, by name or number"},
			func(s *Socket) any { return &s.User }},
		{keyInfo{name: "group", kind: owner, systemd: "SocketGroup=", needs: toPath, option: true, fallback: "sockd's own",
			meaning: "Group of the path, by name or number"},
			func(s *Socket) any { return &s.Group }},
		{keyInfo{name: "directory_mode", kind: mode, systemd: "DirectoryMode=", needs: toPath,
			meaning: "Permission bits of the folders that have to be made for the path"},
			func(s *Socket) any { return &s.DirectoryMode }},
	}
	var options []string
	for _, k := range keys {
		if k.option {
			options = append(options, k.name)
		}
	}
	return append(keys, key[Socket]{keyInfo{name: "optional", kind: optionNames(options),
		meaning: "Keys of this table whose failure is a warning instead of an error"},
		func(s *Socket) any { return &s.Optional }})
})
