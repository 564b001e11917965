package supervisor

import (
	"net"
	"net/http"
	"sync"
	"syscall"

	"github.com/sockd/sockd/supervisor/internal/sys"
	"golang.org/x/sys/unix"
)

// Visitors are the connections of the control socket. Each takes a descriptor, and one
// for which none is left waits until others end: so whoever connects and asks nothing
// makes way for those who come after him.
type visitors struct {
	most int // connections; up to twice as many if they are busy
	mu   sync.Mutex
	turn uint64
	idle map[net.Conn]uint64 // nothing has been asked, or all was answered: since which turn
	busy map[net.Conn]bool   // something is being answered
}

const (
	// visitorShare is the part of all descriptors that connections may have, and
	// leastVisitors and mostVisitors are the bounds of that.
	visitorShare  = 8
	leastVisitors = 16
	mostVisitors  = 1024
	// visitorSpare is how many descriptors connections leave free in any case: half of
	// those that the keeper's reserve leaves.
	visitorSpare = 32
)

func newVisitors() *visitors {
	c := &visitors{most: mostVisitors, idle: map[net.Conn]uint64{}, busy: map[net.Conn]bool{}}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		c.most = int(min(max(limit.Cur/visitorShare, leastVisitors), mostVisitors))
	}
	return c
}

// changed is a server's ConnState: what is new may close what has been idle for longest.
func (c *visitors) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.idle, conn)
	delete(c.busy, conn)
	switch state {
	case http.StateActive:
		c.busy[conn] = true
	case http.StateNew, http.StateIdle:
		c.turn++
		c.idle[conn] = c.turn
	}
	if state == http.StateNew {
		c.makeRoom(conn)
	}
}

// makeRoom closes, where a new connection is one too many, that which has been idle for
// longest; where all others are busy, the new one if it must.
func (c *visitors) makeRoom(conn net.Conn) {
	n, few := len(c.idle)+len(c.busy), scarce(conn)
	if n <= c.most && !few {
		return
	}
	oldest := conn
	for other, turn := range c.idle {
		if turn < c.idle[oldest] {
			oldest = other
		}
	}
	if oldest != conn || few || n > 2*c.most {
		delete(c.idle, oldest)
		oldest.Close()
	}
}

// full tells whether so many requests are under way that none may be added which may take
// long: the rest is for those who ask how things are.
func (c *visitors) full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.busy) > c.most*3/4
}

// scarce tells whether a new connection's descriptor is one of the last.
func scarce(conn net.Conn) bool {
	var limit unix.Rlimit
	sc, ok := conn.(syscall.Conn)
	if !ok || unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return false
	}
	few := false
	if raw, err := sc.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			few = uint64(fd)+visitorSpare > limit.Cur && sys.FreeBeside(int(fd), int(limit.Cur)) < visitorSpare
		})
	}
	return few
}

// admit answers 503 to what may take long when too much of that is under way.
func (c *visitors) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		long := r.Method == http.MethodPost || r.URL.Path == "/v1/events" || r.URL.Path == "/v1/upgrade"
		if long && c.full() {
			w.Header().Set("Connection", "close")
			reply(w, http.StatusServiceUnavailable, &APIError{Text: "too many requests are under way"})
			return
		}
		next.ServeHTTP(w, r)
	})
}
