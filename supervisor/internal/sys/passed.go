package sys

import (
	"net/netip"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Inherited says whether fd is open and stays so through an exec, as what a process before
// us has left open does and nothing that Go opens.
func Inherited(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// BoundAs says whether fd is a socket that Bind(network, address) would have made
// as far as kind and address go: how a socket passed by an outer manager is known.
func BoundAs(fd int, network, address string) bool {
	k, err := kindOf(fd)
	if err != nil {
		return false
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	if sa, ok := name.(*unix.SockaddrUnix); ok {
		return k.typ == unixType(network) && sa.Name != "" && (sa.Name == address || sa.Name == filepath.Clean(address))
	}
	if strings.HasPrefix(network, "unix") {
		return false
	}
	ts, err := targets(network, address, false)
	if err != nil {
		return false
	}
	for _, t := range ts {
		if k.typ != t.typ || t.addr.Port() == 0 {
			continue
		}
		var have netip.AddrPort
		switch sa := name.(type) {
		case *unix.SockaddrInet4:
			have = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
		case *unix.SockaddrInet6:
			have = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
		}
		if have.Port() == t.addr.Port() && have.Addr() == t.addr.Addr().WithZone("") {
			return true
		}
	}
	return false
}

func unixType(network string) int {
	return map[string]int{"unix": unix.SOCK_STREAM, "unixgram": unix.SOCK_DGRAM, "unixpacket": unix.SOCK_SEQPACKET}[network]
}
