package sys

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Watcher tells when held sockets become readable. Each is armed once: the first
// connection disarms it, so a crowd at the door is one piece of news. Arming again
// while the queue is not empty fires at once (epoll_ctl(2), EPOLLONESHOT), so
// nothing is missed between two looks. One goroutine waits for all of them.
//
// That goroutine waits in Go's own poller, which watches the epoll descriptor: the
// thread that hears of an event goes on with what the event is about. A thread
// blocked in epoll_wait(2) would have to wake another one first.
type Watcher struct {
	epoll int
	file  *os.File // of epoll
	conn  syscall.RawConn

	mu     sync.Mutex
	seq    uint32             // of the last change
	armed  map[int32]armament // by descriptor
	closed bool
	done   sync.WaitGroup // a Wait under way
}

// An armament is what an event must match to be news: an event that was under way
// when its descriptor was disarmed carries an older number.
type armament struct {
	key uint64
	seq uint32
}

// NewWatcher makes a Watcher; Close ends it.
func NewWatcher() (*Watcher, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	if err := unix.SetNonblock(epoll, true); err != nil { // for the poller to take it
		unix.Close(epoll)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	w := &Watcher{epoll: epoll, file: os.NewFile(uintptr(epoll), "epoll"), armed: map[int32]armament{}}
	if w.conn, err = w.file.SyscallConn(); err != nil {
		w.file.Close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return w, nil
}

// Arm asks to be told once, under key, when fd is readable or hung up: a listener
// that somebody has shut down counts as both (see Listening). Arming an armed
// descriptor changes its key.
func (w *Watcher) Arm(fd int, key uint64) error { return w.arm(fd, key, unix.EPOLLIN) }

// ArmHangup asks to be told once when fd has hung up or is in error. What cannot be
// polled, like a memfd, never is: unix.EPERM.
func (w *Watcher) ArmHangup(fd int, key uint64) error { return w.arm(fd, key, 0) }

func (w *Watcher) arm(fd int, key uint64, events uint32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return os.ErrClosed
	}
	w.seq++
	ev := unix.EpollEvent{Events: events | unix.EPOLLONESHOT, Fd: int32(fd), Pad: int32(w.seq)}
	// A descriptor that has fired is still in the kernel's set; one that was closed
	// or never armed is not. The kernel knows best.
	err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_MOD, fd, &ev)
	if err == unix.ENOENT {
		err = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &ev)
	}
	if err != nil {
		return fmt.Errorf("watch descriptor %d: %w", fd, err)
	}
	w.armed[int32(fd)] = armament{key, w.seq}
	return nil
}

// Disarm takes back what Arm asked for. After it has returned, Wait reports
// nothing more of fd, even if an event was on its way. A descriptor that is not
// armed is no error.
func (w *Watcher) Disarm(fd int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return os.ErrClosed
	}
	delete(w.armed, int32(fd))
	// Taken out, not set to no events: hang-ups would still be reported.
	err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	if err != nil && err != unix.ENOENT && err != unix.EBADF {
		return fmt.Errorf("stop watching descriptor %d: %w", fd, err)
	}
	return nil
}

// Remove is Disarm for good. Call it before closing fd: others may hold the same
// socket, and then the kernel goes on watching it.
func (w *Watcher) Remove(fd int) error { return w.Disarm(fd) }

// Wait blocks until there is news and stores the keys of what has fired; each of
// them is disarmed. It returns os.ErrClosed after Close. keys must not be empty.
func (w *Watcher) Wait(keys []uint64) (n int, err error) {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return 0, os.ErrClosed
	}
	w.done.Add(1)
	w.mu.Unlock()
	defer w.done.Done()
	events := make([]unix.EpollEvent, min(len(keys), 256))
	closed := w.conn.Read(func(fd uintptr) bool {
		for {
			var got int
			got, err = unix.EpollWait(int(fd), events, 0)
			switch {
			case err == unix.EINTR:
				continue
			case err != nil:
				err = fmt.Errorf("epoll_wait: %w", err)
				return true
			case got == 0:
				return false
			}
			if n, err = w.collect(events[:got], keys); n > 0 || err != nil {
				return true
			}
		}
	})
	if closed != nil {
		return 0, os.ErrClosed
	}
	return n, err
}

// collect keeps what is still wanted.
func (w *Watcher) collect(events []unix.EpollEvent, keys []uint64) (n int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, os.ErrClosed
	}
	for _, ev := range events {
		a, ok := w.armed[ev.Fd]
		if !ok || a.seq != uint32(ev.Pad) {
			continue
		}
		delete(w.armed, ev.Fd)
		keys[n] = a.key
		n++
	}
	return n, nil
}

// Close ends every Wait and then closes what the Watcher has of its own.
func (w *Watcher) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return os.ErrClosed
	}
	w.closed = true
	w.mu.Unlock()
	err := w.file.Close()
	w.done.Wait()
	return err
}
