package activation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen returns the next stream listener called name that was passed to this
// process or, if it was given no sockets at all, listens on network and address by
// itself: "tcp", "tcp4", "tcp6", "unix" or "unixpacket", as net.Listen. A passed
// socket is taken as it is; the supervisor decides where it listens. That name was
// not passed, or was handed out before, is an error.
//
// A TCP socket of its own gets SO_REUSEADDR, so that a restart does not wait for old
// connections, and SO_REUSEPORT, so that further processes of the same user may
// serve the same port: each gets a share of the connections (socket(7)).
func Listen(ctx context.Context, name, network, address string) (net.Listener, error) {
	ls, err := take(inheritance(), name, listener, 1, newListener)
	if err == nil {
		return ls[0], nil
	}
	if !errors.Is(err, ErrNotActivated) {
		return nil, err
	}
	lc := net.ListenConfig{Control: reuse}
	l, err := lc.Listen(ctx, network, address)
	return l, explain(network, err)
}

// ListenPacket is Listen for datagrams: "udp", "udp4", "udp6" or "unixgram". A UDP
// socket of its own gets SO_REUSEPORT only: with SO_REUSEADDR any user of the
// machine could take the port's datagrams away.
func ListenPacket(ctx context.Context, name, network, address string) (net.PacketConn, error) {
	cs, err := take(inheritance(), name, packet, 1, net.FilePacketConn)
	if err == nil {
		return cs[0], nil
	}
	if !errors.Is(err, ErrNotActivated) {
		return nil, err
	}
	lc := net.ListenConfig{Control: reuse}
	c, err := lc.ListenPacket(ctx, network, address)
	return c, explain(network, err)
}

// explain adds to the error of a port that is taken what the kernel does not say.
func explain(network string, err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) || strings.HasPrefix(network, "unix") {
		return err
	}
	return fmt.Errorf("%w (a port is shared only if all of its sockets have SO_REUSEPORT and are of one user; this process is uid %d)", err, os.Geteuid())
}

// reuse sets the options before bind, where the kernel looks at them.
func reuse(network, _ string, raw syscall.RawConn) error {
	var options []int
	switch {
	case strings.HasPrefix(network, "tcp"):
		options = []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT}
	case strings.HasPrefix(network, "udp"):
		options = []int{unix.SO_REUSEPORT}
	}
	var failed error
	err := raw.Control(func(fd uintptr) {
		for _, option := range options {
			failed = errors.Join(failed, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, 1))
		}
	})
	return errors.Join(err, failed)
}
