package activation

import (
	"math"
	"net"
	"os"
)

// Listeners returns the stream listeners called name, in descriptor order; "" means
// whatever they are called. Each is handed out once, so that closing it really
// closes it here; asking again is an error. It returns ErrNotActivated if the
// process was not given any, so that a caller can listen by itself, and an error
// that says what there is when no listener has that name. Closing one never removes
// a Unix path: whoever made it does. Protocol: sd_listen_fds(3).
//
// "ready" is also the name of the private socket on which sockd asks whether this
// very process is ready, where the unit has a readiness gate with http or tcp. Serve
// answers there by itself. Any process of the machine can connect to that socket.
// "" does not mean it, and a process that was given nothing else was given no sockets.
func Listeners(name string) ([]net.Listener, error) {
	return take(inheritance(), name, listener, math.MaxInt, newListener)
}

// PacketConns returns the datagram sockets called name, in descriptor order, as
// *net.UDPConn or *net.UnixConn. Its rules are those of Listeners.
func PacketConns(name string) ([]net.PacketConn, error) {
	return take(inheritance(), name, packet, math.MaxInt, net.FilePacketConn)
}

// Files returns every descriptor that was not handed out yet, in order, whatever
// it is; each file's name is the descriptor's. The caller owns them. It returns
// ErrNotActivated if the process was given none. The descriptors keep their
// numbers and their blocking mode.
func Files() ([]*os.File, error) {
	p := inheritance()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return nil, p.err
	}
	var files []*os.File
	for i := range p.all {
		if d := &p.all[i]; !d.taken {
			d.taken = true
			files = append(files, d.file)
		}
	}
	if files == nil {
		return nil, errAllTaken
	}
	return files, nil
}

// Names returns the names of all descriptors that were passed, in order, also of
// those handed out. A name may come more than once; all are "unknown" if the
// supervisor gave none. It returns ErrNotActivated if the process was given none.
func Names() ([]string, error) {
	p := inheritance()
	return p.names(), p.err
}

func newListener(f *os.File) (net.Listener, error) {
	l, err := net.FileListener(f)
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the path is the supervisor's
	}
	return l, err
}
