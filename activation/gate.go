package activation

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A unit may have sockd ask each process whether it is ready, on a private socket
// that is passed beside the unit's own:
//
//	ready = { http = "/healthz" }
//
// It is no socket of the unit, so only who asks for it by name is given it.
const gateName = "ready"

// gateAddress begins the abstract name of such a socket. A unit may have a socket
// called ready that is one of its own.
const gateAddress = "unix @sockd/ready/"

// isGate tells whether a descriptor of that name and kind is such a socket.
func isGate(name string, k kind, about string) bool {
	return name == gateName && k == listener && strings.HasPrefix(about, gateAddress)
}

// gateListeners returns the private socket to be served beside ours, if there is
// one that nobody has taken.
func gateListeners() ([]net.Listener, error) {
	p := inheritance()
	p.mu.Lock()
	free := slices.ContainsFunc(p.all, func(d descriptor) bool { return d.gate && !d.taken })
	p.mu.Unlock()
	if !free {
		return nil, nil
	}
	return take(p, gateName, listener, 1, newGateListener)
}

// A gateListener lets in those who may ask: the user who made the socket, root, and
// our own. Anybody on the machine can connect to an abstract socket, and what is
// served may be meant for those only who reach the unit's sockets.
type gateListener struct {
	net.Listener
	owner uint32
}

func newGateListener(f *os.File) (net.Listener, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	owner, err := peer(raw)
	if err != nil {
		return nil, err
	}
	l, err := newListener(f)
	if err != nil {
		return nil, err
	}
	return gateListener{l, owner}, nil
}

func (l gateListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.welcome(c) {
			return c, nil
		}
		c.Close()
	}
}

func (l gateListener) welcome(c net.Conn) bool {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return false
	}
	uid, err := peer(raw)
	return err == nil && (uid == l.owner || uid == 0 || int(uid) == os.Getuid())
}

// peer is the user at the other end of a Unix connection; of a listener, the user
// who called listen (SO_PEERCRED, unix(7)).
func peer(raw syscall.RawConn) (uid uint32, err error) {
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, failed); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
