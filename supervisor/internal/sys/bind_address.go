package sys

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A target is one way to bind an internet address.
type target struct {
	kind
	addr netip.AddrPort // with the zone's name
}

// targets reads an address of tcp, tcp4, tcp6, udp, udp4 or udp6. It returns one
// target or, for an address without a host, a second one for machines that have
// no IPv6. Hosts are literal: a name could mean another address at each start.
func targets(network, address string, ipv6Only bool) ([]target, error) {
	base := strings.TrimRight(network, "46")
	typ := unix.SOCK_STREAM
	if base == "udp" {
		typ = unix.SOCK_DGRAM
	}
	host, port, err := splitAddress(address)
	if err != nil {
		return nil, err
	}
	v4 := target{kind{unix.AF_INET, typ, false, port == 0}, netip.AddrPortFrom(netip.IPv4Unspecified(), port)}
	v6 := target{kind{unix.AF_INET6, typ, ipv6Only, port == 0}, netip.AddrPortFrom(netip.IPv6Unspecified(), port)}
	if network == base+"6" {
		v6.v6only = true
	}
	switch {
	case host == "" && network == base+"4":
		return []target{v4}, nil
	case host == "" && (network == base+"6" || ipv6Only):
		return []target{v6}, nil
	case host == "":
		return []target{v6, v4}, nil
	case host == "localhost" && network == base+"6":
		host = "::1"
	case host == "localhost":
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return nil, fmt.Errorf("%q is not an IP address (names are not looked up; write the address, or nothing for all)", host)
	}
	if ip.Is4In6() && network != base+"6" {
		ip = ip.Unmap()
	}
	switch {
	case ip.Is4() && network == base+"6", ip.Is4In6():
		return nil, fmt.Errorf("%s is not an IPv6 address (use %s4://)", host, base)
	case ip.Is4():
		v4.addr = netip.AddrPortFrom(ip, port)
		return []target{v4}, nil
	case network == base+"4":
		return nil, fmt.Errorf("%s is not an IPv4 address (use %s6://)", host, base)
	}
	v6.addr = netip.AddrPortFrom(ip, port)
	// One IPv6 address carries no IPv4, and the kernel sees it so too.
	v6.v6only = v6.v6only || !ip.IsUnspecified()
	return []target{v6}, nil
}

// splitAddress takes HOST:PORT apart; the port is a number.
func splitAddress(address string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not HOST:PORT (IPv6 hosts stand in brackets: [::1]:80)", address)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || text[0] == '+' {
		return "", 0, fmt.Errorf("port %q is not in 0..65535", text)
	}
	return host, uint16(n), nil
}

// sockaddr makes what bind(2) takes.
func (t target) sockaddr() (unix.Sockaddr, error) {
	ip, port := t.addr.Addr(), int(t.addr.Port())
	if t.family == unix.AF_INET {
		return &unix.SockaddrInet4{Addr: ip.As4(), Port: port}, nil
	}
	sa := &unix.SockaddrInet6{Addr: ip.WithZone("").As16(), Port: port}
	if zone := ip.Zone(); zone != "" {
		index, err := zoneIndex(zone)
		if err != nil {
			return nil, err
		}
		sa.ZoneId = index
	}
	return sa, nil
}

func zoneIndex(zone string) (uint32, error) {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	dev, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("zone %s: %w", zone, unix.ENODEV)
	}
	return uint32(dev.Index), nil
}

// addressOf says where a socket is bound, in the words of a unit file.
func addressOf(sa unix.Sockaddr) string {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			zone := strconv.FormatUint(uint64(sa.ZoneId), 10)
			if dev, err := net.InterfaceByIndex(int(sa.ZoneId)); err == nil {
				zone = dev.Name
			}
			ip = ip.WithZone(zone)
		}
		return netip.AddrPortFrom(ip, uint16(sa.Port)).String()
	case *unix.SockaddrUnix:
		return sa.Name
	}
	return ""
}
