package keeper

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Keeper and supervisor speak over a SOCK_SEQPACKET socketpair. These are all the
// messages there are:
//
//	supervisor → keeper                         keeper → supervisor
//	hello     version                           welcome   version
//	inventory                                   held      names, with descriptors
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
type wire struct {
	file *os.File
	raw  syscall.RawConn
	out  []byte // frame under way
	in   []byte
	oob  []byte
}

func newWire(fd int) (*wire, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "keeper")
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &wire{file: f, raw: raw, out: make([]byte, 0, maxFrame), in: make([]byte, maxFrame+1), oob: make([]byte, unix.CmsgSpace(4*254))}, nil
}

func (w *wire) close() error { return w.file.Close() }

// number is the descriptor, which stays the wire's.
func (w *wire) number() int {
	n := -1
	w.raw.Control(func(fd uintptr) { n = int(fd) })
	return n
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

func (w *wire) send(frame, rights []byte) error {
	var result error
	err := w.raw.Write(func(fd uintptr) bool {
		for {
			result = unix.Sendmsg(int(fd), frame, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if result != unix.EINTR {
				break
			}
		}
		return result != unix.EAGAIN && result != unix.ENOBUFS
	})
	if err != nil {
		return err
	}
	return result
}

// errWire means that the other side has said something that makes no sense.
var errWire = errors.New("keeper: malformed message")

// read returns the next message; its descriptors are the caller's from then on. It
// returns net.ErrClosed when the other side has gone.
func (w *wire) read() (m message, err error) {
	for first := true; ; first = false {
		n, fds, err := w.receive()
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
	var result error
	var oobn, flags int
	err = w.raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, flags, _, result = unix.Recvmsg(int(fd), w.in, w.oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
			if result != unix.EINTR {
				break
			}
		}
		return result != unix.EAGAIN
	})
	switch {
	case err != nil:
		return 0, nil, err
	case result == unix.ECONNRESET || result == nil && n == 0 && oobn == 0:
		return 0, nil, net.ErrClosed
	case result != nil:
		return 0, nil, result
	}
	if oobn > 0 {
		fds = rightsIn(w.oob[:oobn])
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return n, fds, errWire
	}
	return n, fds, nil
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
