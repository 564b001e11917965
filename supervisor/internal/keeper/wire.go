package keeper

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Keeper and supervisor speak over a SOCK_SEQPACKET socketpair. These are all the
// messages there are:
//
//	supervisor → keeper                         keeper → supervisor
//	hello     version                           welcome   version
//	inventory 1 if batches are taken            held      names, with descriptors
//	                                            state     unit, bytes
//	                                            child     id, pid, …, news not acknowledged
//	                                            complete
//	hold      name, with a descriptor
//	release   name
//	settle                                      answer    what could not be held, or nothing
//	spawn     id, process, with its output      news      event
//	signal    id, number
//	main      id, pid                           answer    error text, or nothing
//	adopt     a run, as the record has it       answer    error text, or nothing
//	save      unit, bytes
//	acknowledge  event, what to write
//	write     lines for sockd's own log
//	outer     what an outer manager is to know
//	upgrade   id, with the new file             outcome   id, what became of the upgrade, why
//	serving
//	again
//	batch     several of these                  batch     several states and children
//	bye       exit code                         order     a signal the keeper was sent
//
// Requests are taken in order and, but for inventory, settle, main and adopt, not answered:
// what cannot be done is said as news, or by settle, or fails the spawn that would need it.
type op byte

const (
	opHello op = iota + 1
	opWelcome
	opInventory
	opHeld
	opState
	opChild
	opComplete
	opHold
	opRelease
	opSpawn
	opNews
	opSignal
	opMain
	opAnswer
	opSave
	opAcknowledge
	opBye
	opOrder
	opOuter
	opUpgrade
	opServing
	opOutcome
	opAdopt
	opWrite
	opAgain
	opSettle
	opBatch
)

// wireVersion is raised when a message changes its meaning. A keeper refuses a
// supervisor that speaks another one, and starts the version that it can speak to.
const wireVersion = 3

const (
	maxFrame       = 60 << 10 // bytes of one datagram, header included
	maxMessage     = 16 << 20 // bytes of one message, in as many frames as it takes
	maxDescriptors = 200      // in one message; the kernel's limit is 253 (SCM_MAX_FD)
	frameHeader    = 4        // op, 1 if more frames follow, number of descriptors, version
)

// A message is what one side says to the other.
type message struct {
	op   op
	body []byte
	fds  []int
}

// A wire is one end of the socketpair. One goroutine may read and one may write.
//
// Go's poller would hear not only of what there is to read, but also each time the
// other side has read something, and wake this process for nothing. So it watches an
// epoll descriptor that is told of the former only.
type wire struct {
	using   sync.RWMutex // for reading: somebody is at fd
	fd      int
	closed  atomic.Bool
	ready   *os.File // readable when fd may be
	raw     syscall.RawConn
	out     []byte // frame under way
	in      []byte
	oob     []byte
	lenient bool               // a message counts though there was no room for its descriptors: they are noRoom
	take    func(uintptr) bool // receives one frame; made once, for each would be garbage
	got     received
	body    []byte // of the message that was read last, while it fits
}

// received is what take has received.
type received struct {
	n   int
	err error
	hdr unix.Msghdr
	iov unix.Iovec
}

// keptBody is the size of messages, in bytes, whose memory is used again.
const keptBody = 256 << 10

func newWire(fd int) (*wire, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	err = unix.SetNonblock(epoll, true)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN})
	}
	if err != nil {
		unix.Close(epoll)
		return nil, err
	}
	w := &wire{fd: fd, ready: os.NewFile(uintptr(epoll), "keeper"), out: make([]byte, 0, maxFrame), in: make([]byte, maxFrame+1), oob: make([]byte, unix.CmsgSpace(4*254))}
	if w.raw, err = w.ready.SyscallConn(); err != nil {
		w.ready.Close()
		return nil, err
	}
	w.take = w.receiveNow
	return w, nil
}

// close ends what is being read and written, and then closes the descriptor.
func (w *wire) close() error {
	if w.closed.Swap(true) {
		return os.ErrClosed
	}
	unix.Shutdown(w.fd, unix.SHUT_RDWR)
	w.ready.Close()
	w.using.Lock()
	defer w.using.Unlock()
	return unix.Close(w.fd)
}

// number is the descriptor, which stays the wire's.
func (w *wire) number() int { return w.fd }

// duplicate is another descriptor of it, the caller's; noRoom if there cannot be one.
func (w *wire) duplicate() int {
	w.using.RLock()
	defer w.using.RUnlock()
	if w.closed.Load() {
		return noRoom
	}
	fd, err := unix.FcntlInt(uintptr(w.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return noRoom
	}
	return fd
}

// write sends a message; its descriptors stay the caller's. It waits while the
// other side does not read.
func (w *wire) write(m message) error {
	if len(m.body) > maxMessage || len(m.fds) > maxDescriptors {
		return fmt.Errorf("keeper: a message of %d bytes and %d descriptors is too large", len(m.body), len(m.fds))
	}
	var rights []byte
	if len(m.fds) > 0 {
		rights = unix.UnixRights(m.fds...)
	}
	body, count := m.body, len(m.fds)
	for {
		part := body[:min(len(body), maxFrame-frameHeader)]
		body = body[len(part):]
		more := byte(0)
		if len(body) > 0 {
			more = 1
		}
		w.out = append(append(w.out[:0], byte(m.op), more, byte(count), wireVersion), part...)
		if err := w.send(w.out, rights); err != nil {
			return err
		}
		if more == 0 {
			return nil
		}
		rights, count = nil, 0
	}
}

// errWouldWait means that the other side has to read first.
var errWouldWait = errors.New("keeper: the other side does not read")

// writeNow is write for a message without descriptors that need not wait; else
// errWouldWait, and nothing has been written.
func (w *wire) writeNow(m message) error {
	if len(m.body) > maxFrame-frameHeader {
		return errWouldWait
	}
	w.out = append(append(w.out[:0], byte(m.op), 0, 0, wireVersion), m.body...)
	w.using.RLock()
	defer w.using.RUnlock()
	for {
		if w.closed.Load() {
			return os.ErrClosed
		}
		switch err := w.sendOnce(w.out, nil); err {
		case unix.EINTR:
		case unix.EAGAIN, unix.ENOBUFS:
			return errWouldWait
		default:
			return err
		}
	}
}

func (w *wire) sendOnce(frame, rights []byte) error {
	return unix.Sendmsg(w.fd, frame, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

func (w *wire) send(frame, rights []byte) error {
	w.using.RLock()
	defer w.using.RUnlock()
	for {
		if w.closed.Load() {
			return os.ErrClosed
		}
		switch err := w.sendOnce(frame, rights); err {
		case unix.EINTR:
		case unix.EAGAIN: // at most two threads wait here, and close ends it
			unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLOUT}}, -1)
		// The kernel is short of memory, or as many descriptors are on their way as this user may
		// have open, by whomever they were sent (ETOOMANYREFS, unix(7)). Nothing tells when that is over.
		case unix.ENOBUFS, unix.ETOOMANYREFS:
			unix.Poll([]unix.PollFd{{Fd: int32(w.fd)}}, 10)
		default:
			return err
		}
	}
}

// errWire means that the other side has said something that makes no sense.
var errWire = errors.New("keeper: malformed message")

// errCut means that descriptors came for which this process, or the machine, has no room.
var errCut = fmt.Errorf("keeper: descriptors could not be received: %w", unix.EMFILE)

// noRoom stands in a message for a descriptor for which there was no room.
const noRoom = -1

// read returns the next message; its descriptors are the caller's from then on, its
// body is good until the next read. It returns net.ErrClosed when the other side has gone.
func (w *wire) read() (m message, err error) {
	m.body = w.body[:0]
	defer func() {
		if w.body = m.body[:0]; cap(m.body) > keptBody {
			w.body = nil
		}
	}()
	for first := true; ; first = false {
		n, fds, err := w.receive()
		if err == errCut && w.lenient && n >= frameHeader && w.in[2] <= maxDescriptors {
			for len(fds) < int(w.in[2]) {
				fds = append(fds, noRoom)
			}
			err = nil
		}
		m.fds = append(m.fds, fds...)
		if err == nil {
			err = m.add(w.in[:n], len(fds), first)
		}
		if err != nil {
			closeAll(m.fds)
			return message{}, err
		}
		if w.in[1] == 0 {
			return m, nil
		}
	}
}

// add puts a frame to what came before.
func (m *message) add(frame []byte, fds int, first bool) error {
	switch {
	case len(frame) < frameHeader || len(frame) > maxFrame || frame[1] > 1 || int(frame[2]) != fds || fds > maxDescriptors:
		return errWire
	case frame[3] != wireVersion:
		return fmt.Errorf("keeper: the other side speaks version %d of the messages, not %d", frame[3], wireVersion)
	case !first && (op(frame[0]) != m.op || fds > 0):
		return errWire
	case len(m.body)+len(frame) > maxMessage+maxFrame:
		return errWire
	}
	m.op = op(frame[0])
	m.body = append(m.body, frame[frameHeader:]...)
	return nil
}

func (w *wire) receive() (n int, fds []int, err error) {
	err = w.raw.Read(w.take)
	n, oobn, flags, result := w.got.n, int(w.got.hdr.Controllen), int(w.got.hdr.Flags), w.got.err
	switch {
	case err != nil:
		return 0, nil, err
	case result == nil && n == 0 && oobn == 0:
		return 0, nil, net.ErrClosed
	case result != nil:
		return 0, nil, result
	}
	if oobn > 0 {
		fds = rightsIn(w.oob[:oobn])
	}
	switch {
	case flags&unix.MSG_TRUNC != 0:
		return n, fds, errWire
	case flags&unix.MSG_CTRUNC != 0:
		return n, fds, errCut
	}
	return n, fds, nil
}

// receiveNow is false if there is nothing to receive. The system call is made by hand:
// unix.Recvmsg would make room for a sender's address each time.
func (w *wire) receiveNow(uintptr) bool {
	w.using.RLock()
	defer w.using.RUnlock()
	g := &w.got
	for {
		if w.closed.Load() {
			g.err = os.ErrClosed
			return true
		}
		g.iov.Base, g.hdr.Iov, g.hdr.Control, g.hdr.Flags = &w.in[0], &g.iov, &w.oob[0], 0
		g.iov.SetLen(len(w.in))
		g.hdr.SetIovlen(1)
		g.hdr.SetControllen(len(w.oob))
		n, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(w.fd), uintptr(unsafe.Pointer(&g.hdr)), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if g.n, g.err = int(n), nil; errno != 0 {
			g.n, g.err = 0, errno
		}
		// The other side may have died with something unread: the kernel says that first, and
		// once (unix_release_sock), and then gives what it had said before.
		if errno != unix.EINTR && errno != unix.ECONNRESET {
			return errno != unix.EAGAIN
		}
	}
}

func rightsIn(oob []byte) (fds []int) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		some, err := unix.ParseUnixRights(&msgs[i])
		if err == nil {
			fds = append(fds, some...)
		}
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
