package sys

import (
	"sync"

	"golang.org/x/sys/unix"
)

// A close may take as long as somebody likes: that of the last descriptor of a
// socket with SO_LINGER, or of a file on a file system that a service serves. What
// services send us is therefore closed by a goroutine of its own, one after the
// other: never more than one thread waits.
var aside struct {
	mu      sync.Mutex
	waiting []int
	running bool
}

// CloseAside closes descriptors that came from a service, soon.
func CloseAside(fds ...int) {
	if len(fds) == 0 {
		return
	}
	aside.mu.Lock()
	defer aside.mu.Unlock()
	aside.waiting = append(aside.waiting, fds...)
	if !aside.running {
		aside.running = true
		go closeWaiting()
	}
}

// closeWaiting ends when nothing waits.
func closeWaiting() {
	for {
		aside.mu.Lock()
		if len(aside.waiting) == 0 {
			aside.waiting, aside.running = nil, false
			aside.mu.Unlock()
			return
		}
		fd := aside.waiting[0]
		aside.waiting = aside.waiting[1:]
		aside.mu.Unlock()
		unix.Close(fd)
	}
}

// closeTaken closes what came with a message. A pipe, which is what a BARRIER
// brings, is closed at once: its close does not wait, and its sender does.
func closeTaken(fds []int) {
	for _, fd := range fds {
		if st, err := glance(fd); err == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
			unix.Close(fd)
			continue
		}
		CloseAside(fd)
	}
}

// glance is fstat(2) that asks no server: a service may be one (FUSE).
func glance(fd int) (st unix.Statx_t, err error) {
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_MODE|unix.STATX_INO, &st)
	return st, err
}
