package sys

import "golang.org/x/sys/unix"

// A child copies our table of descriptors up to the highest that it needs (see package
// direct), and with thousands held that would be most of what a start costs. So what is
// held for long stands high up, and what a child is given is brought down for it.

// lowRoom is how many descriptors are left for that, from 0.
const lowRoom = 64

// High moves fd out of the low room, and returns where it is now: where it was, if
// there is no place above.
func High(fd int) int {
	if fd < 0 || fd >= lowRoom {
		return fd
	}
	up, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, lowRoom)
	if err != nil {
		return fd
	}
	unix.Close(fd)
	return up
}

// FreeBeside is how many descriptors below limit are free, if what is held stands
// between the low room and fd without a gap.
func FreeBeside(fd, limit int) int {
	free := max(0, limit-max(fd+1, lowRoom))
	for low := range min(limit, lowRoom) {
		if _, err := unix.FcntlInt(uintptr(low), unix.F_GETFD, 0); err == unix.EBADF {
			free++
		}
	}
	return free
}

// bringDown duplicates each of the descriptors that is not in the low room, if there
// is a lower place, and puts it on the list instead. What it returns is to be closed.
func bringDown(fds []int) (made []int) {
	was := -1
	for i, fd := range fds {
		if fd < lowRoom {
			continue
		}
		if fd == was { // 1 and 2 are often the same
			fds[i] = fds[i-1]
			continue
		}
		was = fd
		down, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			continue
		}
		if made = append(made, down); down < fd {
			fds[i] = down
		}
	}
	return made
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
