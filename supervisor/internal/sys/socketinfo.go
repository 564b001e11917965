package sys

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Listening says whether fd accepts connections. A stream socket that was bound
// by Bind and does not has been shut down by somebody who holds it: ListenAgain.
func Listening(fd int) (bool, error) {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || n == 0 {
		return false, err
	}
	// A Unix listener goes on calling itself one, and refuses.
	shut, err := hungUp(fd)
	return !shut, err
}

// hungUp says whether the receiving side is shut down.
func hungUp(fd int) (bool, error) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	for {
		_, err := unix.Poll(p, 0)
		if err != unix.EINTR {
			return p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0, err
		}
	}
}

// SetNonblock sets or clears O_NONBLOCK for everybody who holds the socket.
func SetNonblock(fd int, on bool) error { return unix.SetNonblock(fd, on) }

// Cookie is the kernel's number for a socket: never used twice until reboot, and
// the same through every descriptor (SO_COOKIE, Linux 4.12).
func Cookie(fd int) (uint64, error) {
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
}

// Inode is the number under which /proc and Owner know a socket.
func Inode(fd int) (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Ino, err
}

// Own makes a socket this process's user's, as when it was bound: of which user it is
// decides with whom it may share its port. It returns the uid of the user that it was
// another's, and -1 if it was ours. Only with CAP_CHOWN.
func Own(fd int) (was int, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, os.NewSyscallError("fstat", err)
	}
	if int(st.Uid) == os.Geteuid() {
		return -1, nil
	}
	return int(st.Uid), os.NewSyscallError("fchown", unix.Fchown(fd, os.Geteuid(), -1))
}

// Queue looks at what waits in a held socket, in about a microsecond for tcp and
// udp (kernel.md, section 5). For a listener these are connections: waiting,
// allowed, and turned away. For udp queued and backlog are bytes of memory, as the
// kernel counts them, and drops are datagrams. A unixgram socket tells only the
// size of the next datagram. Unix sockets count no drops: their clients wait.
func Queue(fd int) (queued, backlog int, drops uint64, err error) { return new(Queues).Queue(fd) }

// Queues is one look at many sockets. To find a Unix socket the kernel goes through all
// there are; so after some of them it is asked for all of them at once, and they are as they
// were then. The zero value has not looked yet. Not for use by several goroutines.
type Queues struct {
	asked int // for single Unix sockets
	unix  map[uint32]diagUnix
}

// oneByOne is how many Unix sockets are asked for one by one: that costs about as much as a
// list of all of them.
const oneByOne = 64

// Queue is the function of that name.
func (q *Queues) Queue(fd int) (queued, backlog int, drops uint64, err error) {
	k, err := kindOf(fd)
	if err != nil {
		return 0, 0, 0, err
	}
	if k.family == unix.AF_UNIX {
		queued, backlog, err = q.ofUnix(fd)
		return queued, backlog, 0, err
	}
	if !k.inet() {
		return 0, 0, 0, fmt.Errorf("no queue known for address family %d", k.family)
	}
	mem, err := memInfo(fd)
	if err != nil {
		return 0, 0, 0, err
	}
	drops = uint64(mem[unix.SK_MEMINFO_DROPS])
	if k.udp() {
		return int(mem[unix.SK_MEMINFO_RMEM_ALLOC]), int(mem[unix.SK_MEMINFO_RCVBUF]), drops, nil
	}
	// Of a listener, unacked is the accept queue and sacked its limit (tcp_get_info).
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, 0, 0, err
	}
	if info.State != tcpListen {
		return 0, 0, drops, nil // shut down, or a connection: the fields mean something else
	}
	return int(info.Unacked), int(info.Sacked), drops, nil
}

func (q *Queues) ofUnix(fd int) (queued, backlog int, err error) {
	inode, err := Inode(fd)
	if err != nil {
		return 0, 0, err
	}
	s, err := q.find(uint32(inode))
	switch {
	case err != nil:
		return 0, 0, fmt.Errorf("unix_diag: %w", err)
	case s.state != tcpListen:
		return int(s.queue), 0, nil // the limit it tells is of the sending side
	}
	return int(s.queue), int(s.qlimit), nil
}

func (q *Queues) find(inode uint32) (diagUnix, error) {
	if q.asked == oneByOne && q.unix == nil {
		q.unix = map[uint32]diagUnix{}
		list, _ := diagUnixSockets(0)
		for _, s := range list {
			q.unix[s.inode] = s
		}
	}
	if s, ok := q.unix[inode]; ok {
		return s, nil
	}
	if q.unix == nil {
		q.asked++
	}
	list, err := diagUnixSockets(inode) // also of one that a list left out since others came and went
	if err == nil && len(list) != 1 {
		err = fmt.Errorf("%d sockets with inode %d", len(list), inode)
	}
	if err != nil {
		return diagUnix{}, err
	}
	return list[0], nil
}

// memInfo is SO_MEMINFO; x/sys has no call for it.
func memInfo(fd int) (m [unix.SK_MEMINFO_VARS]uint32, err error) {
	size := uint32(unsafe.Sizeof(m))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&m)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return m, errno
	}
	return m, nil
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}
