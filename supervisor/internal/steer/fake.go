package steer

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// A Fake is a Group without a kernel, for tests of those who call one. It keeps the
// same contract by the same code; only the sockets and what steers them are made up.
// Descriptors are numbers that mean something to this Fake only.
type Fake struct {
	*steering
	net *fakeNet
}

// NewFake is a tcp group of n places at level EBPF; the socket of place i is i.
func NewFake(n int) *Fake { return NewFakeAt(EBPF, n, true) }

// NewFakeAt is one that behaves as another level does. migrate stands for the
// sysctl, and is of no account at level EBPF.
func NewFakeAt(level Level, n int, migrate bool) *Fake {
	f := &Fake{net: &fakeNet{lvl: level, migrate: migrate || level == EBPF}}
	f.steering = &steering{wire: f.net, engine: f.net}
	fds := make([]int, n)
	for i := range fds {
		fds[i] = f.Listen()
		f.net.at = append(f.net.at, fds[i])
	}
	if err := f.begin(fds); err != nil {
		panic(err) // only of n < 1
	}
	f.net.table = f.table
	f.net.tally.Steered = make([]uint64, MaxPlaces)
	return f
}

// Listen makes a socket that a place can be given by Join.
func (f *Fake) Listen() (fd int) {
	f.net.mu.Lock()
	defer f.net.mu.Unlock()
	f.net.sockets = append(f.net.sockets, &fakeSocket{listening: true})
	return len(f.net.sockets) - 1
}

// Connect lets a client come whose addresses and ports have this hash. It waits in a
// socket, whose descriptor is returned, until Accept takes it.
func (f *Fake) Connect(hash uint32) (fd int) {
	finish := f.Handshake(hash)
	return finish()
}

// Handshake lets a client come as far as half open. finish completes it, and tells
// in which socket the client waits then; -1 if the client was reset.
func (f *Fake) Handshake(hash uint32) (finish func() (fd int)) {
	n := f.net
	n.mu.Lock()
	defer n.mu.Unlock()
	at := n.choose(hash, true)
	return func() int {
		n.mu.Lock()
		defer n.mu.Unlock()
		if at >= 0 && !n.sockets[at].listening {
			at = n.moveOne(hash)
		}
		if at < 0 {
			n.resets++
			return -1
		}
		n.sockets[at].queue = append(n.sockets[at].queue, hash)
		return at
	}
}

// Accept takes one who waits in a socket; false if there is nobody.
func (f *Fake) Accept(fd int) bool {
	f.net.mu.Lock()
	defer f.net.mu.Unlock()
	s := f.net.sockets[fd]
	if !s.listening || len(s.queue) == 0 {
		return false
	}
	s.queue = s.queue[1:]
	return true
}

// Shut is a service that calls shutdown(2) on its listener. listen undoes it.
func (f *Fake) Shut(fd int) (listen func()) {
	f.net.shutdown(fd, true)
	return func() { f.net.listen(fd, 1) }
}

// Resets is how many clients have lost their connection.
func (f *Fake) Resets() int {
	f.net.mu.Lock()
	defer f.net.mu.Unlock()
	return f.net.resets
}

// Listening says whether a socket takes connections.
func (f *Fake) Listening(fd int) bool {
	on, _, _, _ := f.net.look(fd)
	return on
}

type fakeSocket struct {
	listening bool
	queue     []uint32 // hashes of who waits
}

// A fakeNet is both the wire and the engine.
type fakeNet struct {
	mu      sync.Mutex
	lvl     Level
	migrate bool
	sockets []*fakeSocket // by descriptor
	at      []int         // by place
	table   *table
	tally   Counts
	resets  int
	waits   []time.Duration // that a real group would have waited
}

// choose is what the kernel does with a new connection.
func (n *fakeNet) choose(hash uint32, count bool) (fd int) {
	if n.lvl != Hash {
		place := int(n.table[hash%Slots])
		if place < len(n.at) && n.at[place] >= 0 && n.sockets[n.at[place]].listening {
			if count {
				n.tally.Steered[place]++
			}
			return n.at[place]
		}
	}
	var members []int
	for fd, s := range n.sockets {
		if s.listening && slices.Contains(n.at, fd) {
			members = append(members, fd)
		}
	}
	if len(members) == 0 {
		return -1
	}
	if count {
		n.tally.Hashed++
	}
	return members[hash%uint32(len(members))]
}

// moveOne finds a new socket for a connection whose own has been shut down.
func (n *fakeNet) moveOne(hash uint32) (fd int) {
	if !n.migrate {
		return -1
	}
	fd = n.choose(hash, false)
	if fd >= 0 {
		n.tally.Moved++
	}
	return fd
}

func (n *fakeNet) kind(fd int) (kind, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if fd < 0 || fd >= len(n.sockets) {
		return kind{}, fmt.Errorf("descriptor %d is no socket of this fake", fd)
	}
	return kind{stream: true}, nil
}

func (n *fakeNet) look(fd int) (bool, int, int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.sockets[fd]
	return s.listening, len(s.queue), 4096, nil
}

func (n *fakeNet) shutdown(fd int, _ bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.sockets[fd]
	s.listening = false
	queue := s.queue
	s.queue = nil
	for _, hash := range queue {
		if to := n.moveOne(hash); to >= 0 {
			n.sockets[to].queue = append(n.sockets[to].queue, hash)
		} else {
			n.resets++
		}
	}
	return nil
}

func (n *fakeNet) listen(fd, _ int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sockets[fd].listening = true
	return nil
}

func (n *fakeNet) wait(d time.Duration) { n.waits = append(n.waits, d) }

func (n *fakeNet) level() Level   { return n.lvl }
func (n *fakeNet) migrates() bool { return n.migrate }

func (n *fakeNet) spread(t *table, weights []int) error {
	if n.lvl == Hash {
		return hashing{}.spread(t, weights)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.table = t
	return nil
}

func (n *fakeNet) leaving(int, int) error { return nil }

func (n *fakeNet) left(place, fd int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at[place] == fd {
		n.at[place] = -1
	}
	return nil
}

func (n *fakeNet) entered(place, fd int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.at) <= place {
		n.at = append(n.at, -1)
	}
	n.at[place] = fd
	return nil
}

func (n *fakeNet) counts(places int) (Counts, bool) {
	if n.lvl != EBPF {
		return Counts{}, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.tally
	c.Steered = append([]uint64(nil), c.Steered[:places]...)
	return c, true
}

func (n *fakeNet) issue(int, uint32) error { return nil }
func (n *fakeNet) inherit(int, int) error  { return nil }
func (n *fakeNet) held() map[string]int    { return nil }
func (n *fakeNet) close(int) error         { return nil }
