package sys

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The little of sock_diag(7) that is needed here, from linux/inet_diag.h and
// linux/unix_diag.h.
const (
	tcpTimeWait = 6
	tcpListen   = 10

	inetDiagV6Only = 11 // attribute: sent for listening and closed sockets

	unixShowName, unixShowVFS, unixShowRQLen = 1, 2, 0x10
	unixDiagName, unixDiagVFS, unixDiagRQLen = 0, 1, 4
	unixDiagUID, unixShowUID                 = 7, 0x40
)

// A diagSocket is one socket of the network namespace, seen from outside.
type diagSocket struct {
	family, state uint8
	addr          netip.Addr
	remote        netip.AddrPort
	uid, inode    uint32
	v6only        bool
}

// A diagUnix is one Unix socket. Path device and inode are those of its file,
// cut to 32 bits by the kernel.
type diagUnix struct {
	state         uint8
	inode         uint32
	name          string // abstract ones begin with NUL
	vfsIno        uint32
	vfsDev        uint32
	uid           uint32
	queue, qlimit uint32
}

var native = binary.NativeEndian

// diagInet lists the sockets of one family, protocol and local port, in any
// state, also bound ones that do not listen (Linux 6.8).
func diagInet(family, proto uint8, port uint16) ([]diagSocket, error) {
	req := make([]byte, 56)
	req[0], req[1] = family, proto
	native.PutUint32(req[4:], ^uint32(0))
	binary.BigEndian.PutUint16(req[8:], port) // the kernel selects by it
	native.PutUint32(req[48:], ^uint32(0))    // no cookie
	native.PutUint32(req[52:], ^uint32(0))
	var list []diagSocket
	err := sockDiag(req, unix.NLM_F_DUMP, func(b []byte) {
		if len(b) < 72 || binary.BigEndian.Uint16(b[4:]) != port {
			return
		}
		s := diagSocket{family: b[0], state: b[1], uid: native.Uint32(b[64:]), inode: native.Uint32(b[68:])}
		far := binary.BigEndian.Uint16(b[6:])
		if s.family == unix.AF_INET {
			s.addr = netip.AddrFrom4([4]byte(b[8:12]))
			s.remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[24:28])), far)
		} else {
			s.addr = netip.AddrFrom16([16]byte(b[8:24]))
			s.remote = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[24:40])), far)
		}
		attributes(b[72:], func(t uint16, v []byte) {
			if t == inetDiagV6Only && len(v) > 0 {
				s.v6only = v[0] != 0
			}
		})
		list = append(list, s)
	})
	return list, err
}

// diagUnixSockets lists Unix sockets: all, or the one with a socket inode.
func diagUnixSockets(inode uint32) ([]diagUnix, error) {
	req := make([]byte, 24)
	req[0] = unix.AF_UNIX
	native.PutUint32(req[4:], ^uint32(0))
	native.PutUint32(req[8:], inode)
	native.PutUint32(req[12:], unixShowName|unixShowVFS|unixShowRQLen|unixShowUID)
	native.PutUint32(req[16:], ^uint32(0))
	native.PutUint32(req[20:], ^uint32(0))
	flags := uint16(0)
	if inode == 0 {
		flags = unix.NLM_F_DUMP
	}
	var list []diagUnix
	err := sockDiag(req, flags, func(b []byte) {
		if len(b) < 16 {
			return
		}
		s := diagUnix{state: b[2], inode: native.Uint32(b[4:])}
		attributes(b[16:], func(t uint16, v []byte) {
			switch {
			case t == unixDiagName:
				s.name = string(v)
			case t == unixDiagVFS && len(v) >= 8:
				s.vfsIno, s.vfsDev = native.Uint32(v), native.Uint32(v[4:])
			case t == unixDiagRQLen && len(v) >= 8:
				s.queue, s.qlimit = native.Uint32(v), native.Uint32(v[4:])
			case t == unixDiagUID && len(v) >= 4:
				s.uid = native.Uint32(v)
			}
		})
		list = append(list, s)
	})
	return list, err
}

// sockDiag sends one request and hands each answer to the caller. It sees the
// network namespace of this thread.
func sockDiag(req []byte, flags uint16, each func(body []byte)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The kernel answers at once; the limit is for one that does not.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return err
	}
	m := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(req))
	native.PutUint32(m, uint32(cap(m)))
	native.PutUint16(m[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(m[6:], unix.NLM_F_REQUEST|flags)
	if err := unix.Sendto(fd, append(m, req...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		done, err := diagAnswers(buf[:n], flags&unix.NLM_F_DUMP != 0, each)
		if done || err != nil {
			return err
		}
	}
}

// diagAnswers walks through the messages of one packet.
func diagAnswers(b []byte, dump bool, each func([]byte)) (done bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		length := int(native.Uint32(b))
		if length < unix.NLMSG_HDRLEN || length > len(b) {
			return false, errors.New("sock_diag: bad length")
		}
		body := b[unix.NLMSG_HDRLEN:length]
		switch native.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return false, errors.New("sock_diag: bad error")
			}
			if e := int32(native.Uint32(body)); e != 0 {
				return true, unix.Errno(-e)
			}
			return true, nil
		}
		each(body)
		if !dump {
			return true, nil
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return false, nil
}

// attributes walks through netlink attributes.
func attributes(b []byte, each func(t uint16, v []byte)) {
	for len(b) >= 4 {
		length := int(native.Uint16(b))
		if length < 4 || length > len(b) {
			return
		}
		each(native.Uint16(b[2:])&0x3fff, b[4:length])
		b = b[min((length+3)&^3, len(b)):]
	}
}
