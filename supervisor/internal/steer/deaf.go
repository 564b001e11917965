package steer

import (
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deafness drops the first packet of a handshake.
var deafness = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13}, // the flags of the TCP header, where a socket's filter begins to count
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0x02, Jt: 0, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
}

// Deafen makes a tcp listener take no notice of who comes now: the first packet of a
// handshake is dropped. Who has come before is queued and accepted. A client repeats
// that packet after a second (tcp_syn_retries, tcp(7)), and comes to another socket if
// this one has been closed by then: so one can leave a group that nobody can steer
// without anybody being lost. Linux 6.18.44 gives EPERM to who has no CAP_NET_ADMIN, which
// nobody needed before; a socket of MPTCP takes no filter. Not of a socket that is locked.
func Deafen(fd int) error {
	prog := unix.SockFprog{Len: uint16(len(deafness)), Filter: &deafness[0]}
	return os.NewSyscallError("set SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog))
}

// Deaf says whether a socket was made deaf, and hears nothing yet. Other filters are a
// service's own.
func Deaf(fd int) bool {
	var has [8]unix.SockFilter
	n := uint32(len(has)) // instructions, not bytes
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER,
		uintptr(unsafe.Pointer(&has)), uintptr(unsafe.Pointer(&n)), 0)
	return errno == 0 && int(n) <= len(has) && slices.Equal(has[:n], deafness)
}

// Undeafen ends it. A socket that is not deaf stays as it is.
func Undeafen(fd int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
	if err == unix.ENOENT {
		return nil
	}
	return os.NewSyscallError("set SO_DETACH_FILTER", err)
}

// Quit takes a udp socket out of a group that nobody steers: it keeps its datagrams and
// gets no more.
func Quit(fd int) error { return connectToSelf(fd) }
