package sys

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// A Message is one datagram on a notify socket, and who sent it.
type Message struct {
	Pid, UID, GID int // checked by the kernel (SCM_CREDENTIALS)
	Fields        Notification
	Descriptors   int // how many came with it
	// Refused says why the message, or a part of it, does not count; "" if all is
	// well. Fields holds what does count.
	Refused string
}

// notifyBuffer is bytes of receive buffer, as systemd has it.
const notifyBuffer = 8 << 20

// NewNotify makes the notify socket of one run. The address goes into the run's
// NOTIFY_SOCKET; it is abstract, so that no file is left behind, with 128 random
// bits, so that only who was told it can speak. It is non-blocking and ours alone:
// the run gets the address and not the descriptor.
func NewNotify() (fd int, address string, err error) {
	address = "@sockd/" + randomHex(16)
	fd, err = NotifyAt(address)
	return fd, address, err
}

// NotifyAt is NewNotify at an address that a run was given before.
func NotifyAt(address string) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("notify socket: %w", err)
	}
	// Before bind: who sends first must not be without credentials.
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err == nil {
		_, err = setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, notifyBuffer, "", "")
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: address})
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("notify socket: %w", err)
	}
	return fd, nil
}

// The most control data one datagram can bring: SCM_MAX_FD descriptors and the
// credentials. With room for all, none can be cut off unseen.
var notifyControl = unix.CmsgSpace(253*4) + unix.CmsgSpace(unix.SizeofUcred) + 64

// ReadNotify takes the next datagram, or with peek looks at it and leaves it
// queued. It never blocks: unix.EAGAIN means that there is none. Anything else in
// the datagram is no error but Refused, so a client cannot stop the reading.
//
// Descriptors that come with it are closed. A peek is given duplicates; those in the
// queue stay, so a client that waits on a BARRIER sees the hang-up only when its
// message is taken, after everything that it said before.
func ReadNotify(fd int, peek bool) (Message, error) {
	m, fds, err := receiveNotify(fd, peek)
	closeTaken(fds)
	return m, err
}

// PeekNotify is ReadNotify that looks, and leaves the duplicates of descriptors to
// the caller: to keep, or to close with CloseAside.
func PeekNotify(fd int) (Message, []int, error) { return receiveNotify(fd, true) }

func receiveNotify(fd int, peek bool) (m Message, fds []int, err error) {
	flags := unix.MSG_DONTWAIT | unix.MSG_CMSG_CLOEXEC
	if peek {
		flags |= unix.MSG_PEEK
	}
	var buf [maxNotify]byte
	oob := make([]byte, notifyControl)
	for {
		n, oobn, got, _, err := unix.Recvmsg(fd, buf[:], oob, flags)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Message{}, nil, err
		}
		fds, creds := m.control(oob[:oobn])
		m.judge(buf[:n], got, creds)
		return m, fds, nil
	}
}

// control takes the descriptors and the credentials. Control data that was cut off
// may still have brought some descriptors, so it is walked through first.
func (m *Message) control(oob []byte) (fds []int, creds bool) {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, false
	}
	for i := range list {
		switch list[i].Header.Type {
		case unix.SCM_RIGHTS:
			some, _ := unix.ParseUnixRights(&list[i])
			fds = append(fds, some...)
		case unix.SCM_CREDENTIALS:
			if c, err := unix.ParseUnixCredentials(&list[i]); err == nil && c.Pid > 0 {
				m.Pid, m.UID, m.GID, creds = int(c.Pid), int(c.Uid), int(c.Gid), true
			}
		}
	}
	m.Descriptors = len(fds)
	return fds, creds
}

// judge decides what of the message counts.
func (m *Message) judge(b []byte, flags int, creds bool) {
	var why []string
	refuse := func(text string) { why = append(why, text) }
	fields, err := ParseNotify(b)
	switch {
	case flags&unix.MSG_TRUNC != 0:
		refuse(fmt.Sprintf("longer than %d bytes", maxNotify))
	case flags&unix.MSG_CTRUNC != 0:
		refuse("its descriptors could not be received")
	case !creds:
		refuse("it comes without credentials, or from a process that is not visible from here")
	case err != nil:
		refuse(err.Error())
	case fields.Barrier && m.Descriptors != 1:
		refuse(fmt.Sprintf("BARRIER=1 needs one descriptor and came with %d", m.Descriptors))
	default:
		m.Fields = fields
		for _, p := range fields.Problems {
			refuse(p)
		}
		if fields.FDStoreRemove && fields.FDName == "" {
			refuse("FDSTOREREMOVE=1 needs FDNAME")
			m.Fields.FDStoreRemove = false
		}
		if fields.FDStore && !fields.FDStoreRemove && m.Descriptors == 0 {
			refuse("FDSTORE=1 came without a descriptor")
		}
		if m.Descriptors > 0 && !fields.Barrier && !m.Stores() {
			refuse(fmt.Sprintf("%d descriptors closed", m.Descriptors))
		}
	}
	m.Refused = strings.Join(why, "; ")
}

// Stores says whether its descriptors are meant to be kept: FDSTORE=1, and not
// FDSTOREREMOVE=1, which goes first.
func (m *Message) Stores() bool { return m.Fields.FDStore && !m.Fields.FDStoreRemove }
