package steer

import (
	"os"

	"golang.org/x/sys/unix"
)

// Deafen makes a tcp listener take no notice of who comes now: the first packet of a
// handshake is dropped. Who has come before is queued and accepted. A client repeats
// that packet after a second (tcp_syn_retries, tcp(7)), and comes to another socket if
// this one has been closed by then: so one can leave a group that nobody can steer
// without anybody being lost. It needs no privilege. Not of a socket that is locked.
func Deafen(fd int) error {
	const flags, syn = 13, 0x02 // of the TCP header, where a socket's filter begins to count
	ins := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flags},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: syn, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
	}
	prog := unix.SockFprog{Len: uint16(len(ins)), Filter: &ins[0]}
	return os.NewSyscallError("set SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog))
}

// Undeafen ends it. A socket that is not deaf stays as it is.
func Undeafen(fd int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
	if err == unix.ENOENT {
		return nil
	}
	return os.NewSyscallError("set SO_DETACH_FILTER", err)
}
