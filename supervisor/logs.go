package supervisor

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sockd/sockd/supervisor/internal/sys"
	"golang.org/x/sys/unix"
)

// logs reads the log pipes of all runs in one goroutine. Where the output is slow,
// it waits, the pipes fill, and the services wait: no line is dropped.
//
// A supervisor that dies loses no line and brings none twice: see outbox. A line whose
// end has not come is kept with the keeper.
type logs struct {
	watch *sys.Watcher
	lines *lineWriter
	done  chan uint64   // the pipe of a run that has ended has been read to its end: its key
	quit  chan struct{} // closed when nobody takes done any more
	ended chan struct{} // closed when the goroutine has ended

	mu        sync.Mutex
	pipes     map[uint64]*pipe  // by key
	finishing []uint64          // to be read to their end, readable or not
	wake      int               // an eventfd: look at finishing and opened
	opened    *outbox           // to be taken up before anything is read
	after     map[source][]byte // what a log goes on after, if it is not what its rest was saved as

	box      *outbox      // the goroutine's
	progress atomic.Int64 // see outbox

	blind bool   // there is no tee(2): what is read is out of the pipe
	glass [2]int // a pipe to look at another pipe through
	buf   []byte
	keep  func(src source, rest []byte) // keeps an unfinished line; nil forgets it
}

type pipe struct {
	splitter
	fd        int
	finishing bool // its run has ended: what is in the pipe is all there will be
}

// wakeKey is the watch key of logs.wake; runs have others.
const wakeKey = 0

func newLogs(lines *lineWriter, keep func(source, []byte)) (*logs, error) {
	w, err := sys.NewWatcher()
	if err != nil {
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = w.Arm(wake, wakeKey)
	}
	var glass [2]int
	if err == nil {
		err = unix.Pipe2(glass[:], unix.O_CLOEXEC|unix.O_NONBLOCK)
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	l := &logs{watch: w, lines: lines, done: make(chan uint64), quit: make(chan struct{}), ended: make(chan struct{}),
		pipes: map[uint64]*pipe{}, wake: wake, glass: glass, buf: make([]byte, 64<<10), keep: keep}
	go l.read()
	return l, nil
}

// add begins to read fd, the non-blocking read end of a run's log pipe, after rest,
// the beginning of a line that a supervisor before us kept. The descriptor stays the
// caller's; key comes back through done when it is at its end and finish was called.
func (l *logs) add(key uint64, fd int, src source, rest []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if after, ok := l.after[src]; ok {
		rest = after
		delete(l.after, src)
	}
	if err := l.watch.Arm(fd, key); err != nil {
		return err
	}
	l.pipes[key] = &pipe{splitter: splitter{src: src, rest: rest}, fd: fd}
	return nil
}

// open takes up an outbox. Nothing is read without one.
func (l *logs) open(b *outbox) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened = b
	l.ring()
}

func (l *logs) ring() { unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 1}) } // any number but 0

func (l *logs) closed() bool {
	select {
	case <-l.quit:
		return true
	default:
		return false
	}
}

// finish says that the run has ended: what the pipe holds is read, an unfinished
// line is written, and then it is done, even if somebody still has the other end.
func (l *logs) finish(key uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.pipes[key]; p != nil && !p.finishing {
		p.finishing = true
		l.finishing = append(l.finishing, key)
		l.ring()
	}
}

// close ends the goroutine and says whether it has ended; pipes not yet at their end
// stay unread. One that is stuck in a write ends when somebody takes what it writes.
func (l *logs) close() bool {
	close(l.quit)
	l.watch.Close()
	select {
	case <-l.ended:
		return true
	case <-time.After(closeGrace):
		return false
	}
}

// closeGrace is how long close waits for a write that is under way.
const closeGrace = 100 * time.Millisecond

func (l *logs) read() {
	defer close(l.ended)
	defer unix.Close(l.wake)
	defer closePair(l.glass)
	keys := make([]uint64, 256)
	for {
		n, err := l.watch.Wait(keys)
		if err != nil {
			return
		}
		l.takeUp()
		for _, key := range keys[:n] {
			if key != wakeKey {
				l.readKey(key)
				continue
			}
			unix.Read(l.wake, make([]byte, 8))
			l.watch.Arm(l.wake, wakeKey)
			l.mu.Lock()
			ended := l.finishing
			l.finishing = nil
			l.mu.Unlock()
			for _, key := range ended {
				l.readKey(key)
			}
		}
	}
}

// takeUp takes up an outbox that was opened.
func (l *logs) takeUp() {
	l.mu.Lock()
	b := l.opened
	l.opened = nil
	l.mu.Unlock()
	if b != nil {
		l.box, l.lines.out, b.progress = b, &b.text, &l.progress
		l.recover()
	}
}

func (l *logs) readKey(key uint64) {
	l.mu.Lock()
	p := l.pipes[key]
	l.mu.Unlock()
	if p != nil && l.readOnce(p, key) {
		l.forget(key, p)
	}
}

// readOnce takes what is there, up to one buffer, so that a talkative run does not
// keep others waiting, and says whether the pipe is at its end. Of a run that has
// ended it takes all, but no more than a pipe can hold: whoever still writes then is
// not of the run. Where nobody takes done any more it is not for us to say: what is
// left, and the rest of a line, is the next supervisor's.
func (l *logs) readOnce(p *pipe, key uint64) bool {
	left := 0
	for {
		if l.closed() { // the descriptor may be another's by now
			return false
		}
		l.mu.Lock()
		finishing := p.finishing // before reading: what came earlier is then in the pipe
		l.mu.Unlock()
		n, err := l.look(p.fd)
		switch {
		case n > 0:
			n = l.ship(p, n)
			if finishing {
				if left == 0 {
					left, _ = unix.FcntlInt(uintptr(p.fd), unix.F_GETPIPE_SZ, 0)
				}
				if left -= n; left > 0 {
					continue
				}
				return !l.closed()
			}
			return l.watch.Arm(p.fd, key) != nil && !l.closed()
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN) && !finishing:
			return l.watch.Arm(p.fd, key) != nil && !l.closed()
		case err == nil && !finishing: // end of file: most likely the run is about to end, and there is more to do for that
			return false
		default: // nothing left of a run that has ended
			return !l.closed()
		}
	}
}

// look reads what is in the pipe, up to one buffer, into buf, and leaves it there.
// No bytes and no error is the end.
func (l *logs) look(fd int) (int, error) {
	if l.blind {
		return unix.Read(fd, l.buf)
	}
	n, err := unix.Tee(fd, l.glass[1], len(l.buf), unix.SPLICE_F_NONBLOCK)
	if err == unix.ENOSYS || err == unix.EPERM { // a container's filter
		l.blind = true
		return l.look(fd)
	}
	if err != nil || n == 0 {
		return 0, err
	}
	for got := 0; got < int(n); {
		m, err := unix.Read(l.glass[0], l.buf[got:n])
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
		got += max(m, 0)
	}
	return int(n), nil
}

// takeOut removes n bytes that have been dealt with; they are there.
func (l *logs) takeOut(fd, n int) {
	if l.blind {
		return
	}
	for n > 0 {
		m, err := unix.Read(fd, l.buf[:n])
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		n -= max(m, 0)
	}
}

func (l *logs) forget(key uint64, p *pipe) {
	if len(p.rest) > 0 {
		l.shipRest(p)
	}
	l.watch.Remove(p.fd)
	l.mu.Lock()
	delete(l.pipes, key)
	l.mu.Unlock()
	select {
	case l.done <- key:
	case <-l.quit:
	}
}

func closePair(p [2]int) {
	unix.Close(p[0])
	unix.Close(p[1])
}

// outputFailed says that lines of services cannot be written, and when they can again.
func (s *Supervisor) outputFailed(lost int, err error) {
	if err != nil {
		s.log.Error("output lost", "err", err)
		return
	}
	s.log.Warn("output again", "lost", lost)
}
