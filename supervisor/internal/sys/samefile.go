package sys

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Storable says why sockd does not keep a service's descriptor; nil: it does.
// Devices may do anything when they are closed, and an epoll instance keeps others'
// files open that nobody sees.
func Storable(fd int) error {
	st, err := glance(fd)
	switch {
	case err == unix.ENOSYS || err == unix.EPERM: // statx is from Linux 4.11; some filters forbid it
		var old unix.Stat_t
		if err := unix.Fstat(fd, &old); err != nil {
			return err
		}
		st.Mode = uint16(old.Mode)
	case err != nil:
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		return errors.New("it is a device")
	}
	if isEpoll(fd) {
		return errors.New("it is an epoll instance")
	}
	return nil
}

// isEpoll asks the kernel to take something out of fd that is not in it: all but an
// epoll instance answer EINVAL (epoll_ctl(2)).
func isEpoll(fd int) bool {
	other, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(other)
	return unix.EpollCtl(fd, unix.EPOLL_CTL_DEL, other, nil) == unix.ENOENT
}

const (
	fDupFDQuery = 1027 // F_DUPFD_QUERY, Linux 6.10
	kcmpFile    = 0    // KCMP_FILE
)

// SameFile says whether two descriptors of this process mean the same open file.
func SameFile(a, b int) bool {
	if a == b {
		return true
	}
	if n, err := unix.FcntlInt(uintptr(a), fDupFDQuery, b); err == nil {
		return n == 1
	}
	pid := uintptr(unix.Getpid())
	n, _, errno := unix.Syscall6(unix.SYS_KCMP, pid, pid, kcmpFile, uintptr(a), uintptr(b), 0)
	if errno == 0 {
		return n == 0
	}
	return looksSame(a, b)
}

// looksSame is for kernels without kcmp(2) and filters that forbid it: a socket has
// a cookie of its own, and two openings of a file count as one if they can do the
// same. What has no inode of its own (eventfd, timerfd …) is never the same.
func looksSame(a, b int) bool {
	ca, errA := Cookie(a)
	cb, errB := Cookie(b)
	if errA == nil || errB == nil {
		return errA == nil && errB == nil && ca == cb
	}
	var sa, sb unix.Stat_t
	if unix.Fstat(a, &sa) != nil || unix.Fstat(b, &sb) != nil || sa.Mode&unix.S_IFMT == 0 {
		return false
	}
	fa, errA := unix.FcntlInt(uintptr(a), unix.F_GETFL, 0)
	fb, errB := unix.FcntlInt(uintptr(b), unix.F_GETFL, 0)
	return errA == nil && errB == nil && fa == fb && sa.Dev == sb.Dev && sa.Ino == sb.Ino
}

// Hungup says whether fd can bring nothing more: its other end has gone, or it is
// in error. What cannot be polled never is.
func Hungup(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	for {
		_, err := unix.Poll(p, 0)
		if err != unix.EINTR {
			return err == nil && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
		}
	}
}

// Room says whether another descriptor like fd leaves so many numbers free.
func Room(fd, reserve int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if uint64(fd)+uint64(reserve) > limit.Cur {
		return fmt.Errorf("sockd has not many descriptors left of %d", limit.Cur)
	}
	return nil
}
