package sys

import (
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Options says how a socket is made. A key that means nothing for a network
// (no_delay for udp) is not applied there, because one table of a unit file may
// list addresses of several networks.
type Options struct {
	ReusePort   bool
	ReuseAddr   *bool // nil: on for tcp, off for udp, where any user could steal the datagrams (kernel.md, section 1)
	NonBlocking bool
	Backlog     int // 0: the system's maximum, net.core.somaxconn
	IPv6Only    bool

	FreeBind     bool
	Transparent  bool // needs CAP_NET_ADMIN or CAP_NET_RAW
	BindToDevice string
	Mark         *int // needs CAP_NET_ADMIN
	Priority     *int
	// ReceiveBuffer and SendBuffer are bytes; 0 leaves the system's. With
	// CAP_NET_ADMIN net.core.rmem_max and wmem_max do not limit them; without it
	// a buffer that came out smaller is a warning. The kernel reports the double.
	ReceiveBuffer int
	SendBuffer    int
	KeepAlive     bool
	NoDelay       bool
	DeferAccept   time.Duration // rounded up to whole seconds
	FastOpen      int           // queue length; 0: off
	IPTOS         *int          // also the traffic class of IPv6
	IPTTL         *int          // also the hop limit of IPv6

	Mode          fs.FileMode // of a Unix path; 0: 0666
	DirectoryMode fs.FileMode // of folders that have to be made for it; 0: 0755
	UID, GID      int         // owner of a Unix path; -1: as sockd

	// Optional lists keys, written as in unit files (bind_to_device), whose
	// failure is a warning and not an error.
	Optional []string
}

// An OptionError is an option that could not be set.
type OptionError struct {
	Key  string // as in unit files: mark
	Name string // as in the manual: SO_MARK
	Err  error
	Hint string // what to do, or ""
}

func (e *OptionError) Error() string {
	s := fmt.Sprintf("%s: set %s: %v", e.Key, e.Name, e.Err)
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *OptionError) Unwrap() error { return e.Err }

// A kind is what decides which options a socket has.
type kind struct {
	family int // AF_INET, AF_INET6, AF_UNIX
	typ    int // SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET
	v6only bool
	// anyPort is port 0: the kernel looks for a free one. With SO_REUSEADDR it would
	// search one half of the range first, slowly (35 times a bare loop for 10,000
	// sockets), and might share a port with connections; so that comes after bind.
	anyPort bool
}

func (k kind) inet() bool { return k.family == unix.AF_INET || k.family == unix.AF_INET6 }
func (k kind) v6() bool   { return k.family == unix.AF_INET6 }
func (k kind) any() bool  { return true }
func (k kind) tcp() bool  { return k.inet() && k.typ == unix.SOCK_STREAM }
func (k kind) udp() bool  { return k.inet() && k.typ == unix.SOCK_DGRAM }
func (k kind) udp6() bool { return k.udp() && k.v6() }

// An option is one row of the table: set before bind, and read back by OptionsOf.
type option struct {
	key, name  string
	level, opt int
	has        func(kind) bool
	want       func(*Options, kind) (value int, asked bool)
	set        func(fd int, o *Options) (warning string, err error) // nil: setsockopt with an int
	hint       string                                               // after EPERM
}

const (
	needsAdmin = "needs CAP_NET_ADMIN"
	needsRaw   = "needs CAP_NET_ADMIN or CAP_NET_RAW"
)

// On an IPv6 socket the options of both families are set: it may carry IPv4 too.
var options = []option{
	{key: "reuse_addr", name: "SO_REUSEADDR", level: unix.SOL_SOCKET, opt: unix.SO_REUSEADDR, has: kind.inet, want: wantReuseAddr},
	{key: "reuse_port", name: "SO_REUSEPORT", level: unix.SOL_SOCKET, opt: unix.SO_REUSEPORT, has: kind.inet,
		want: func(o *Options, _ kind) (int, bool) { return 1, o.ReusePort }},
	// Never left to net.ipv6.bindv6only.
	{key: "ipv6_only", name: "IPV6_V6ONLY", level: unix.IPPROTO_IPV6, opt: unix.IPV6_V6ONLY, has: kind.v6,
		want: func(_ *Options, k kind) (int, bool) { return number(k.v6only), true }},
	{key: "free_bind", name: "IP_FREEBIND", level: unix.IPPROTO_IP, opt: unix.IP_FREEBIND, has: kind.inet, want: wantFreeBind},
	{key: "free_bind", name: "IPV6_FREEBIND", level: unix.IPPROTO_IPV6, opt: unix.IPV6_FREEBIND, has: kind.v6, want: wantFreeBind},
	{key: "transparent", name: "IP_TRANSPARENT", level: unix.IPPROTO_IP, opt: unix.IP_TRANSPARENT, has: kind.inet, want: wantTransparent, hint: needsRaw},
	{key: "transparent", name: "IPV6_TRANSPARENT", level: unix.IPPROTO_IPV6, opt: unix.IPV6_TRANSPARENT, has: kind.v6, want: wantTransparent, hint: needsRaw},
	{key: "bind_to_device", name: "SO_BINDTODEVICE", level: unix.SOL_SOCKET, opt: unix.SO_BINDTODEVICE, has: kind.inet,
		want: func(o *Options, _ kind) (int, bool) { return 0, o.BindToDevice != "" }, set: setDevice, hint: "needs CAP_NET_RAW"},
	{key: "mark", name: "SO_MARK", level: unix.SOL_SOCKET, opt: unix.SO_MARK, has: kind.any,
		want: func(o *Options, _ kind) (int, bool) { return pointed(o.Mark) }, hint: needsAdmin},
	{key: "receive_buffer", name: "SO_RCVBUF", level: unix.SOL_SOCKET, opt: unix.SO_RCVBUF, has: kind.any,
		want: func(o *Options, _ kind) (int, bool) { return o.ReceiveBuffer, o.ReceiveBuffer != 0 },
		set: func(fd int, o *Options) (string, error) {
			return setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, o.ReceiveBuffer, "receive_buffer", "rmem_max")
		}},
	{key: "send_buffer", name: "SO_SNDBUF", level: unix.SOL_SOCKET, opt: unix.SO_SNDBUF, has: kind.any,
		want: func(o *Options, _ kind) (int, bool) { return o.SendBuffer, o.SendBuffer != 0 },
		set: func(fd int, o *Options) (string, error) {
			return setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, o.SendBuffer, "send_buffer", "wmem_max")
		}},
	{key: "keep_alive", name: "SO_KEEPALIVE", level: unix.SOL_SOCKET, opt: unix.SO_KEEPALIVE, has: kind.tcp,
		want: func(o *Options, _ kind) (int, bool) { return 1, o.KeepAlive }},
	{key: "no_delay", name: "TCP_NODELAY", level: unix.IPPROTO_TCP, opt: unix.TCP_NODELAY, has: kind.tcp,
		want: func(o *Options, _ kind) (int, bool) { return 1, o.NoDelay }},
	{key: "defer_accept", name: "TCP_DEFER_ACCEPT", level: unix.IPPROTO_TCP, opt: unix.TCP_DEFER_ACCEPT, has: kind.tcp,
		want: func(o *Options, _ kind) (int, bool) {
			return int((o.DeferAccept + time.Second - 1) / time.Second), o.DeferAccept > 0
		}},
	{key: "fast_open", name: "TCP_FASTOPEN", level: unix.IPPROTO_TCP, opt: unix.TCP_FASTOPEN, has: kind.tcp,
		want: func(o *Options, _ kind) (int, bool) { return o.FastOpen, o.FastOpen != 0 }},
	{key: "ip_tos", name: "IP_TOS", level: unix.IPPROTO_IP, opt: unix.IP_TOS, has: kind.inet, want: wantTOS},
	{key: "ip_tos", name: "IPV6_TCLASS", level: unix.IPPROTO_IPV6, opt: unix.IPV6_TCLASS, has: kind.v6, want: wantTOS},
	{key: "ip_ttl", name: "IP_TTL", level: unix.IPPROTO_IP, opt: unix.IP_TTL, has: kind.inet, want: wantTTL},
	{key: "ip_ttl", name: "IPV6_UNICAST_HOPS", level: unix.IPPROTO_IPV6, opt: unix.IPV6_UNICAST_HOPS, has: kind.v6, want: wantTTL},
	// A socket that joined nothing must not receive the groups that others on this
	// machine joined, which is the kernel's default (ip(7), IP_MULTICAST_ALL).
	{key: "multicast", name: "IP_MULTICAST_ALL", level: unix.IPPROTO_IP, opt: unix.IP_MULTICAST_ALL, has: kind.udp,
		want: func(*Options, kind) (int, bool) { return 0, true }},
	{key: "multicast", name: "IPV6_MULTICAST_ALL", level: unix.IPPROTO_IPV6, opt: unix.IPV6_MULTICAST_ALL, has: kind.udp6,
		want: func(*Options, kind) (int, bool) { return 0, true }},
	// Last: IP_TOS sets it too (ip(7)).
	{key: "priority", name: "SO_PRIORITY", level: unix.SOL_SOCKET, opt: unix.SO_PRIORITY, has: kind.any,
		want: func(o *Options, _ kind) (int, bool) { return pointed(o.Priority) }, hint: "above 6 " + needsAdmin},
}

func wantReuseAddr(o *Options, k kind) (int, bool) {
	if o.ReuseAddr != nil {
		return number(*o.ReuseAddr), true
	}
	return 1, k.tcp()
}
func wantFreeBind(o *Options, _ kind) (int, bool)    { return 1, o.FreeBind }
func wantTransparent(o *Options, _ kind) (int, bool) { return 1, o.Transparent }
func wantTOS(o *Options, _ kind) (int, bool)         { return pointed(o.IPTOS) }
func wantTTL(o *Options, _ kind) (int, bool)         { return pointed(o.IPTTL) }

func pointed(p *int) (int, bool) {
	if p == nil {
		return 0, false
	}
	return *p, true
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// apply sets every option asked for. It runs before bind and listen, so that the
// kernel hands the options on to connections, also to the first one; what anyPort
// puts off is set by a second call after bind.
func (o *Options) apply(fd int, k kind, afterBind bool) (warnings []string, err error) {
	for i := range options {
		row := &options[i]
		putOff := k.anyPort && row.level == unix.SOL_SOCKET && (row.opt == unix.SO_REUSEADDR || row.opt == unix.SO_REUSEPORT)
		if !row.has(k) || putOff != afterBind {
			continue
		}
		value, asked := row.want(o, k)
		if !asked {
			continue
		}
		var warning string
		var err error
		if row.set != nil {
			warning, err = row.set(fd, o)
		} else {
			err = unix.SetsockoptInt(fd, row.level, row.opt, value)
		}
		if err == unix.ENOPROTOOPT && row.key == "multicast" {
			continue // IPv6_MULTICAST_ALL is of Linux 4.20; nobody asked for it by name
		}
		if err != nil {
			e := &OptionError{Key: row.key, Name: row.name, Err: err}
			if err == unix.EPERM || err == unix.EACCES {
				e.Hint = row.hint
			}
			if !slices.Contains(o.Optional, row.key) {
				return warnings, e
			}
			warning = e.Error()
		}
		if warning != "" {
			warnings = append(warnings, warning)
		}
	}
	return warnings, nil
}

func setDevice(fd int, o *Options) (string, error) {
	return "", unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, o.BindToDevice)
}

// setBuffer tries the variant that the system's maximum does not cut, which needs
// CAP_NET_ADMIN, and then the common one, which the kernel cuts without a word.
func setBuffer(fd, force, common, bytes int, key, sysctl string) (string, error) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, bytes) == nil {
		return "", nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, common, bytes); err != nil {
		return "", err
	}
	// The kernel doubles what was asked, for its own bookkeeping (socket(7)).
	if got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, common); err == nil && got/2 < bytes {
		return fmt.Sprintf("%s: got %d of %d bytes (raise net.core.%s, or give sockd CAP_NET_ADMIN)", key, got/2, bytes, sysctl), nil
	}
	return "", nil
}
