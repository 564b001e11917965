package steer

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Lock forbids everybody who holds the socket to replace the group's program through
// it, or to set a filter: a service that inherits it can do neither (SO_LOCK_FILTER,
// socket(7)). For ever, so ask [Level.Lockable] first. The kernel goes on letting
// everybody remove the program (SO_DETACH_REUSEPORT_BPF): a service that does so
// returns its group to the kernel's hash until the next socket joins or the group is
// opened again.
func Lock(fd int) error {
	return os.NewSyscallError("set SO_LOCK_FILTER", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1))
}

// A wire is what a group does to sockets. There are two: the kernel's, and the fake's.
type wire interface {
	// kind also checks that the socket can be steered at all.
	kind(fd int) (kind, error)
	// look tells whether a stream socket listens, how many connections wait in it,
	// and its backlog.
	look(fd int) (listening bool, queued, backlog int, err error)
	// shutdown takes a socket out of the kernel's group: a stream socket ends
	// listening, another is connected to itself.
	shutdown(fd int, stream bool) error
	listen(fd, backlog int) error
	wait(time.Duration)
}

type kernel struct{}

func (kernel) look(fd int) (bool, int, int, error) {
	on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || on == 0 {
		return false, 0, 0, os.NewSyscallError("get SO_ACCEPTCONN", err)
	}
	// Of a listener, unacked is the accept queue and sacked its limit (tcp_get_info).
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return false, 0, 0, os.NewSyscallError("get TCP_INFO", err)
	}
	return true, int(info.Unacked), int(info.Sacked), nil
}

func (kernel) shutdown(fd int, stream bool) error {
	if !stream {
		return connectToSelf(fd)
	}
	if err := unix.Shutdown(fd, unix.SHUT_RD); err != nil && err != unix.ENOTCONN { // ENOTCONN: it did not listen
		return os.NewSyscallError("shutdown", err)
	}
	return nil
}

// listen binds first. A port that the kernel had chosen, for bind to port 0, it takes
// back when the socket is shut down (tcp_set_state); getsockname still tells it, and
// listen would choose another in silence. A port that was asked for by number is
// kept, and bind is refused.
func (kernel) listen(fd, backlog int) error {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	if err := unix.Bind(fd, name); err != nil && err != unix.EINVAL {
		return os.NewSyscallError("bind", err)
	}
	return os.NewSyscallError("listen", unix.Listen(fd, backlog))
}

func (kernel) wait(d time.Duration) { <-time.After(d) }

// connectToSelf is the way out for udp: a socket that is connected hears its peer
// only. Its own address is one that it can always reach.
func connectToSelf(fd int) error {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		if a.Addr == [4]byte{} {
			a.Addr = [4]byte{127, 0, 0, 1}
		}
	case *unix.SockaddrInet6:
		if a.Addr == [16]byte{} {
			a.Addr = [16]byte{15: 1}
		}
	}
	return os.NewSyscallError("connect", unix.Connect(fd, name))
}

// A kind is what all sockets of a group have in common.
type kind struct {
	stream  bool
	v6      bool // may carry IPv4 too
	address string
}

func (kernel) kind(fd int) (kind, error) {
	var value [3]int
	for i, opt := range []int{unix.SO_DOMAIN, unix.SO_TYPE, unix.SO_REUSEPORT} {
		var err error
		if value[i], err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt); err != nil {
			return kind{}, fmt.Errorf("descriptor %d: %w", fd, err)
		}
	}
	domain, typ, reuse := value[0], value[1], value[2]
	if domain != unix.AF_INET && domain != unix.AF_INET6 || typ != unix.SOCK_STREAM && typ != unix.SOCK_DGRAM {
		return kind{}, fmt.Errorf("descriptor %d is no tcp or udp socket", fd)
	}
	if reuse == 0 {
		return kind{}, fmt.Errorf("descriptor %d has no SO_REUSEPORT", fd)
	}
	k := kind{stream: typ == unix.SOCK_STREAM, v6: domain == unix.AF_INET6}
	sa, err := unix.Getsockname(fd)
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		k.address = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		k.address = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String()
	default:
		return kind{}, fmt.Errorf("descriptor %d: getsockname: %w", fd, err)
	}
	return k, nil
}

func (k kind) String() string {
	if k.stream {
		return "tcp " + k.address
	}
	return "udp " + k.address
}

// Migration is [Report].Migration as it is now.
func Migration() bool { return migrateReq() }

// migrateReq says whether this network namespace moves the connections of a
// listener that goes (net.ipv4.tcp_migrate_req, Linux 5.14). It is read each time:
// an administrator may change it.
func migrateReq() bool {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_migrate_req")
	return err == nil && strings.TrimSpace(string(text)) == "1"
}

// detach returns the group to the kernel's hash (Linux 5.3).
func detach(fd int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
	if err == unix.ENOENT {
		err = nil // nothing was attached
	}
	return os.NewSyscallError("set SO_DETACH_REUSEPORT_BPF", err)
}
