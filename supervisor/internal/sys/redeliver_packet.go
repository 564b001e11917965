package sys

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// packet is a whole IP packet with a UDP datagram. The kernel fills in IPv4's checksum.
func packet(src, dst netip.AddrPort, data []byte) []byte {
	const hops = 64
	size := 8 + len(data)
	var p []byte
	if dst.Addr().Is4() {
		p = append(p, 4<<4|5, 0)
		p = binary.BigEndian.AppendUint16(p, uint16(20+size))
		p = append(p, 0, 0, 0, 0, hops, unix.IPPROTO_UDP, 0, 0)
	} else {
		p = append(p, 6<<4, 0, 0, 0)
		p = binary.BigEndian.AppendUint16(p, uint16(size))
		p = append(p, unix.IPPROTO_UDP, hops)
	}
	p = append(p, src.Addr().AsSlice()...)
	p = append(p, dst.Addr().AsSlice()...)
	udp := len(p)
	p = binary.BigEndian.AppendUint16(p, src.Port())
	p = binary.BigEndian.AppendUint16(p, dst.Port())
	p = binary.BigEndian.AppendUint16(p, uint16(size))
	p = append(p, 0, 0)
	p = append(p, data...)
	binary.BigEndian.PutUint16(p[udp+6:], checksum(src.Addr(), dst.Addr(), p[udp:]))
	return p
}

// checksum is UDP's, over a pseudo-header too (RFC 768; RFC 8200, section 8.1).
func checksum(src, dst netip.Addr, udp []byte) uint16 {
	sum := uint32(unix.IPPROTO_UDP) + uint32(len(udp))
	for _, part := range [][]byte{src.AsSlice(), dst.AsSlice(), udp} {
		for i, b := range part {
			sum += uint32(b) << (8 * (1 - i%2))
			sum = sum&0xffff + sum>>16
		}
	}
	if sum := ^uint16(sum); sum != 0 {
		return sum
	}
	return 0xffff // 0 means that there is none
}
