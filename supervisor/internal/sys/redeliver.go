package sys

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Redeliver takes the datagrams that wait in a UDP socket and lets each arrive once more,
// from the same peer, so that it comes to the socket that its flow is dealt to now, which is
// one of to. It returns how many have come back. Nobody may read the socket meanwhile, and it must
// be given nothing any more. The kernel moves no datagrams as it does connections, so they are
// sent through a raw socket, for which it wants CAP_NET_RAW; they come in by the loopback
// device, and a packet filter sees them there.
//
// After an error what has not come back waits where it was: ErrNotRedelivered says that
// the kernel would not bring it to the socket's siblings, ErrNoRoom that one of to is half full, or that there are very many.
// What was sent to a group or to all is dropped: each socket was given a copy.
func Redeliver(fd int, to ...int) (n int, err error) {
	r, err := newRedelivery(fd)
	if err != nil {
		return 0, err
	}
	defer r.close()
	free := -1
	for range mostRedelivered {
		if free < 0 { // there may be a thousand of them: not for each datagram
			if free, err = freeIn(to); err != nil {
				return n, err
			}
		}
		sent, memory, err := r.one()
		free -= memory
		switch {
		case err == errNothing:
			return n, nil
		case err != nil:
			return n, err
		}
		n += sent
	}
	return n, ErrNoRoom
}

// freeIn is how much memory each of those sockets may take at least until it is half full.
func freeIn(sockets []int) (free int, err error) {
	free = math.MaxInt
	for _, fd := range sockets {
		queued, room, _, err := Queue(fd)
		if err != nil {
			return 0, err
		}
		free = min(free, room/2-queued)
	}
	if free < 0 {
		return 0, ErrNoRoom
	}
	return free, nil
}

// mostRedelivered bounds how many datagrams are redelivered at a time: it takes some microseconds
// for each, and others wait.
const mostRedelivered = 1 << 13

// DropFirst takes the first datagram out of a socket that Redeliver cannot bring anywhere.
func DropFirst(fd int) error {
	_, _, _, _, err := unix.Recvmsg(fd, nil, nil, unix.MSG_DONTWAIT)
	return os.NewSyscallError("recvmsg", err)
}

// MayRedeliver is the error that Redeliver would give for want of a privilege, or nil.
func MayRedeliver() error {
	fd, err := rawSocket(unix.AF_INET)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func rawSocket(family int) (fd int, err error) {
	fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	return fd, os.NewSyscallError("raw socket", err)
}

// Why datagrams are not redelivered.
var (
	errNothing        = errors.New("nothing waits")
	ErrNotRedelivered = errors.New("it is bound to a device, or takes what is for other addresses")
	ErrNoRoom         = errors.New("the socket that they are for is half full")
)

// A redelivery is under way.
type redelivery struct {
	fd      int
	family  int
	port    uint16
	pktinfo int // the socket option that tells where a datagram was sent to, as it was
	raw4    int // -1: not needed yet
	raw6    int
	buf     []byte
	oob     []byte
}

func newRedelivery(fd int) (*redelivery, error) {
	if elsewhere(fd) {
		return nil, ErrNotRedelivered
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	r := &redelivery{fd: fd, raw4: -1, raw6: -1, buf: make([]byte, 1<<16), oob: make([]byte, 256)}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		r.family, r.port = unix.AF_INET, uint16(name.Port)
	case *unix.SockaddrInet6:
		r.family, r.port = unix.AF_INET6, uint16(name.Port)
	default:
		return nil, unix.EAFNOSUPPORT
	}
	level, option := r.tellsWhereTo()
	if r.pktinfo, err = unix.GetsockoptInt(fd, level, option); err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	return r, os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, option, 1))
}

// elsewhere says whether a socket's datagrams could come by another device only, or be for
// an address that the machine does not have.
func elsewhere(fd int) bool {
	device, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	if err == nil && device != "" {
		return true
	}
	on, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT)
	return err == nil && on != 0
}

func (r *redelivery) tellsWhereTo() (level, option int) {
	if r.family == unix.AF_INET6 {
		return unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	return unix.IPPROTO_IP, unix.IP_PKTINFO
}

func (r *redelivery) close() {
	level, option := r.tellsWhereTo()
	unix.SetsockoptInt(r.fd, level, option, r.pktinfo)
	for _, fd := range []int{r.raw4, r.raw6} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// memoryOf is more than a packet takes of a socket's buffer (SKB_TRUESIZE, linux/skbuff.h):
// what describes it, and bytes rounded up to a power of two.
func memoryOf(bytes int) int { return 2048 + 2*bytes }

// one lets the first datagram arrive again, and takes it out of the socket only then. One
// that the kernel has put together of several (UDP_GRO) is taken apart. It returns what the
// kernel may need for it.
func (r *redelivery) one() (sent, memory int, err error) {
	n, oobn, flags, from, err := unix.Recvmsg(r.fd, r.buf, r.oob, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err == unix.EAGAIN {
		return 0, 0, errNothing // not to be taken for what a send may say
	}
	if err != nil {
		return 0, 0, os.NewSyscallError("recvmsg", err)
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return 0, 0, fmt.Errorf("a datagram of %d bytes was cut", n)
	}
	to, size := whereTo(r.oob[:oobn])
	if size == 0 {
		size = max(n, 1)
	}
	src, err := peerOf(from)
	switch {
	case err != nil:
		return 0, 0, err
	case !to.IsValid() || to.IsLinkLocalUnicast() || src.Addr().IsLinkLocalUnicast(): // its device would be another
		return 0, 0, ErrNotRedelivered
	}
	if !to.IsMulticast() && to != netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		for rest := r.buf[:n]; sent == 0 || len(rest) > 0; sent++ {
			part := rest[:min(size, len(rest))]
			rest = rest[len(part):]
			memory += memoryOf(len(part))
			if err := r.send(src, netip.AddrPortFrom(to, r.port), part); err != nil {
				return 0, memory, err
			}
		}
	}
	return sent, memory, DropFirst(r.fd) // the same one: nobody else reads
}

// peerOf is who has sent a datagram.
func peerOf(from unix.Sockaddr) (netip.AddrPort, error) {
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(from.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(from.Addr).Unmap(), uint16(from.Port)), nil
	}
	return netip.AddrPort{}, unix.EAFNOSUPPORT
}

// whereTo reads the address that a datagram was sent to, and, of one that was put
// together, the size of its parts; else 0.
func whereTo(oob []byte) (to netip.Addr, size int) {
	all, _ := unix.ParseSocketControlMessage(oob)
	for _, m := range all {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12:
			to = netip.AddrFrom4([4]byte(m.Data[8:12]))
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16:
			to = netip.AddrFrom16([16]byte(m.Data[:16])).Unmap()
		case m.Header.Level == unix.IPPROTO_UDP && m.Header.Type == unix.UDP_GRO && len(m.Data) >= 2:
			size = int(native.Uint16(m.Data))
		}
	}
	return to, size
}

// send sends a datagram as if src had.
func (r *redelivery) send(src, dst netip.AddrPort, data []byte) error {
	if src.Addr().Is4() != dst.Addr().Is4() {
		return ErrNotRedelivered
	}
	raw, family := &r.raw6, unix.AF_INET6
	var to unix.Sockaddr = &unix.SockaddrInet6{Addr: dst.Addr().As16()}
	if dst.Addr().Is4() {
		raw, family = &r.raw4, unix.AF_INET
		to = &unix.SockaddrInet4{Addr: dst.Addr().As4()}
	}
	if *raw < 0 {
		fd, err := rawSocket(family)
		if err != nil {
			return err
		}
		*raw = fd
	}
	return os.NewSyscallError("sendto", unix.Sendto(*raw, packet(src, dst, data), unix.MSG_DONTWAIT, to))
}
