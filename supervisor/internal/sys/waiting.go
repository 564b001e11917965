package sys

import (
	"encoding/binary"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	tcpEstablished = 1
	tcpCloseWait   = 8 // the client has sent all it wants to

	inetDiagInfo = 2 // attribute: struct tcp_info
)

// OldestWaiting is how long the oldest connection to an address waits that nobody has
// accepted; 0 if none does. It is of all listeners of that address, to the kernel's tick
// of 1 to 10 ms. An address that is a wildcard has the connections of every one.
//
// Who has been accepted has a file, and an inode; who has not has none. The kernel
// starts the clock of the last data sent when a handshake is complete
// (tcp_rcv_state_process), and nothing is sent before somebody accepts.
func OldestWaiting(addr netip.AddrPort) (oldest time.Duration, err error) {
	req := make([]byte, 56)
	req[0], req[1], req[2] = unix.AF_INET6, unix.IPPROTO_TCP, 1<<(inetDiagInfo-1)
	if addr.Addr().Is4() {
		req[0] = unix.AF_INET
	}
	native.PutUint32(req[4:], 1<<tcpEstablished|1<<tcpCloseWait)
	binary.BigEndian.PutUint16(req[8:], addr.Port()) // the kernel selects by it
	native.PutUint32(req[48:], ^uint32(0))           // no cookie
	native.PutUint32(req[52:], ^uint32(0))
	wanted := addr.Addr().WithZone("")
	err = sockDiag(req, unix.NLM_F_DUMP, func(b []byte) {
		if len(b) < 72 || binary.BigEndian.Uint16(b[4:]) != addr.Port() || native.Uint32(b[68:]) != 0 {
			return
		}
		local := netip.AddrFrom16([16]byte(b[8:24]))
		if b[0] == unix.AF_INET {
			local = netip.AddrFrom4([4]byte(b[8:12]))
		}
		if !wanted.IsUnspecified() && local != wanted {
			return
		}
		attributes(b[72:], func(t uint16, v []byte) {
			const at = unsafe.Offsetof(unix.TCPInfo{}.Last_data_sent)
			if t == inetDiagInfo && len(v) >= int(at)+4 {
				oldest = max(oldest, time.Duration(native.Uint32(v[at:]))*time.Millisecond)
			}
		})
	})
	return oldest, err
}
