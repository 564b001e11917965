package steer

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A deaf listener keeps who has come, and takes no notice of anybody else until it is
// closed or hears again: then they come, by their own second try.
func TestDeaf(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6", "tcp"} {
		t.Run(network, func(t *testing.T) {
			w := newKernelWorld(t, network, 2, Hash, false, Options{}, halfOpenMeans)
			must(t, unix.Shutdown(w.fds[1], unix.SHUT_RD)) // all come to the first
			finish := w.halfOpen(1)
			w.connect(1)
			must(t, Deafen(w.fds[0]))
			finish()
			if by := w.serve(2); by[0] != 2 || w.lost() != 0 {
				t.Fatalf("served by place %v, %d lost", by, w.lost())
			}
			fd, to := w.caller(t)
			if err := unix.Connect(fd, to); err != unix.EINPROGRESS {
				t.Fatalf("connect: %v", err)
			}
			if n := w.synRecv(); n != 0 {
				t.Errorf("%d connections are half open on a deaf listener", n)
			}
			must(t, Undeafen(w.fds[0]))
			must(t, Undeafen(w.fds[0]))
			w.clients = append(w.clients, fd)
			for poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}; ; {
				if n, err := unix.Poll(poll, int(patience.Milliseconds())); err == unix.EINTR {
					continue
				} else if n != 1 {
					t.Fatalf("the client has not tried again: %v", err)
				}
				break
			}
			must(t, unix.SetNonblock(fd, false))
			w.speak([]int{fd})
			if by := w.serve(1); by[0] != 1 || w.lost() != 0 {
				t.Errorf("served by place %v, %d lost", by, w.lost())
			}
		})
	}
}

// caller is a client that does not wait for its connection, and where it goes.
func (w *kernelWorld) caller(t *testing.T) (int, unix.Sockaddr) {
	t.Helper()
	domain, to := unix.AF_INET, w.address.clients[0]
	if _, v6 := to.(*unix.SockaddrInet6); v6 {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	return fd, to
}
