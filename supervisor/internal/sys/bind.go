package sys

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Bound is a socket that listens (tcp, unix, unixpacket) or receives (udp,
// unixgram). FD is close-on-exec and blocking unless asked otherwise, and stays
// out of Go's poller, which would switch O_NONBLOCK on for everybody who holds it.
type Bound struct {
	FD       int
	Network  string    // as asked
	Address  string    // as the kernel has it: port 0 has become the port
	Path     *UnixPath // nil unless it has a name in the file system
	Warnings []string  // options that could not be set and were optional; buffers cut by the system
}

// A BindError is an address that could not be taken. errors.Is finds the errno.
type BindError struct {
	Op               string // "bind", "listen", "socket"
	Network, Address string
	Err              error
	Owner            *Owner // EADDRINUSE: whose it is, where that could be found
	Hint             string // what to do, or ""
}

func (e *BindError) Error() string {
	s := fmt.Sprintf("%s %s %s: %v", e.Op, e.Network, e.Address, e.Err)
	if e.Owner != nil {
		s += " by " + e.Owner.String()
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *BindError) Unwrap() error { return e.Err }

// Bind makes a socket, sets its options, binds it and, unless it is a datagram
// socket, listens. Networks are Go's: tcp tcp4 tcp6 udp udp4 udp6 unix unixgram
// unixpacket. ":8080" and "[::]:8080" of tcp and udp take IPv6 and IPv4; where
// the machine has no IPv6, ":8080" is 0.0.0.0:8080. "@name" is abstract. An error
// is a *BindError.
func Bind(network, address string, o Options) (*Bound, error) {
	var b *Bound
	var err error
	switch network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		b, err = bindInet(network, address, &o, unix.Socket)
	case "unix", "unixgram", "unixpacket":
		b, err = bindUnix(network, address, &o)
	default:
		err = fmt.Errorf("unknown network %q", network)
	}
	if err == nil {
		return b, nil
	}
	e := new(BindError)
	if !errors.As(err, &e) {
		e = &BindError{Op: "bind", Err: err}
	}
	e.Network = network
	if e.Address == "" {
		e.Address = address
	}
	return nil, e
}

func bindInet(network, address string, o *Options, socket func(domain, typ, proto int) (int, error)) (*Bound, error) {
	list, err := targets(network, address, o.IPv6Only)
	if err != nil {
		return nil, err
	}
	var t target
	fd := -1
	for _, t = range list {
		fd, err = socket(t.family, t.typ|socketFlags(o), 0)
		if err != unix.EAFNOSUPPORT {
			break
		}
	}
	if err != nil {
		return nil, socketError(err)
	}
	b := &Bound{FD: fd, Network: network}
	if err := b.settle(t, o); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return b, nil
}

// settle takes a fresh internet socket to where it listens.
func (b *Bound) settle(t target, o *Options) error {
	var err error
	if b.Warnings, err = o.apply(b.FD, t.kind, false); err != nil {
		return err
	}
	if err := b.bind(t, o); err != nil {
		return inetError("bind", t, o.ReusePort, err)
	}
	more, err := o.apply(b.FD, t.kind, true)
	if err != nil {
		return err
	}
	b.Warnings = append(b.Warnings, more...)
	if t.typ == unix.SOCK_STREAM {
		if err := b.listen(o.Backlog); err != nil {
			return inetError("listen", t, o.ReusePort, err)
		}
	}
	return b.name()
}

// bind binds, to a port named, also where any will do: a port that the kernel chose
// would be lost when somebody shuts the listener down, and listening again would
// take another (tcp_set_state: no SOCK_BINDPORT_LOCK).
func (b *Bound) bind(t target, o *Options) error {
	var err error
	for range 16 { // somebody may take the port between the look and the bind
		named := t
		if t.anyPort {
			if named.addr, err = freeAddress(t, o); err != nil {
				return err
			}
		}
		sa, err := named.sockaddr()
		if err != nil {
			return err
		}
		if err = unix.Bind(b.FD, sa); err != unix.EADDRINUSE || !t.anyPort {
			return err
		}
	}
	return unix.EADDRINUSE
}

// freeAddress has the kernel choose a port that nobody has.
func freeAddress(t target, o *Options) (netip.AddrPort, error) {
	fd, err := unix.Socket(t.family, t.typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return t.addr, err
	}
	defer unix.Close(fd)
	if _, err := o.apply(fd, t.kind, false); err != nil {
		return t.addr, err
	}
	sa, err := t.sockaddr()
	if err != nil {
		return t.addr, err
	}
	if err := unix.Bind(fd, sa); err != nil {
		return t.addr, err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return t.addr, err
	}
	return netip.AddrPortFrom(t.addr.Addr(), portOf(name)), nil
}

func portOf(name unix.Sockaddr) uint16 {
	switch sa := name.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port)
	case *unix.SockaddrInet6:
		return uint16(sa.Port)
	}
	return 0
}

func socketFlags(o *Options) int {
	if o.NonBlocking {
		return unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	}
	return unix.SOCK_CLOEXEC
}

func (b *Bound) name() error {
	sa, err := unix.Getsockname(b.FD)
	if err != nil {
		return fmt.Errorf("getsockname: %w", err)
	}
	b.Address = addressOf(sa)
	return nil
}

// listen warns where the kernel will cut the backlog without a word.
func (b *Bound) listen(backlog int) error {
	if backlog > 0 {
		if limit := somaxconn(); backlog > limit {
			b.Warnings = append(b.Warnings, fmt.Sprintf("backlog: got %d of %d (raise net.core.somaxconn)", limit, backlog))
		}
	}
	return listen(b.FD, backlog)
}

func listen(fd, backlog int) error {
	if backlog <= 0 {
		backlog = math.MaxInt32 // cut by the kernel to net.core.somaxconn as it is now (listen(2))
	}
	return unix.Listen(fd, backlog)
}

// ErrShutDown is a Unix listener on which somebody has called shutdown(2). Linux
// has no way back: the socket refuses everybody for ever and has to be bound anew.
var ErrShutDown = errors.New("shut down for good: bind it anew")

// ListenAgain makes fd listen, or changes the backlog of one that listens: what is
// queued stays. It also heals a tcp listener on which somebody has called
// shutdown(2), which acts on everybody who holds the socket; of a Unix one that is
// ErrShutDown. Backlog 0 is the system's maximum.
func ListenAgain(fd, backlog int) error {
	if err := listen(fd, backlog); err != nil {
		return err
	}
	if shut, err := hungUp(fd); err != nil || !shut {
		return err
	}
	return ErrShutDown
}

// somaxconn is the largest backlog that the kernel grants.
func somaxconn() int {
	if n, ok := sysctlNumber("net/core/somaxconn"); ok {
		return n
	}
	return 4096 // since Linux 5.4
}

func sysctlNumber(name string) (int, bool) {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	return n, err == nil
}

func socketError(err error) error {
	e := &BindError{Op: "socket", Err: err}
	if err == unix.EMFILE {
		e.Hint = "raise the limit of open files: LimitNOFILE=, ulimit -n"
	}
	return e
}

// inetError adds to a refused bind or listen what helps: the owner, or a remedy.
func inetError(op string, t target, reuses bool, err error) error {
	e := &BindError{Op: op, Address: t.addr.String(), Err: err}
	switch err {
	case unix.EADDRINUSE:
		e.Owner = inetOwner(t)
		switch {
		case e.Owner == nil:
		case e.Owner.TimeWait:
			e.Hint = "reuse_addr = true binds beside it"
		case reuses && int(e.Owner.UID) != os.Geteuid():
			e.Hint = fmt.Sprintf("a port is shared by SO_REUSEPORT only among sockets of one user, and sockd is uid %d", os.Geteuid())
		case reuses && !e.Owner.Self:
			e.Hint = "a port is shared only if all of its sockets have SO_REUSEPORT, and that one has not"
		}
	case unix.EACCES:
		if first, ok := sysctlNumber("net/ipv4/ip_unprivileged_port_start"); ok && int(t.addr.Port()) < first {
			e.Hint = fmt.Sprintf("ports under %d need CAP_NET_BIND_SERVICE; or lower net.ipv4.ip_unprivileged_port_start", first)
		}
	case unix.EADDRNOTAVAIL:
		e.Hint = "no interface has this address; free_bind = true binds it before one has"
	case unix.EINVAL:
		if ip := t.addr.Addr(); (ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast()) && t.addr.Addr().Zone() == "" {
			e.Hint = fmt.Sprintf("a link-local address needs its interface: [%s%%eth0]:%d", t.addr.Addr(), t.addr.Port())
		}
	}
	return e
}
