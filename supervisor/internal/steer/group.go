package steer

import (
	"errors"
	"fmt"
	"time"
)

// A Group steers the sockets of one address. All methods may be called at any time
// from any goroutine; each acts at once, except that Flush, Leave and a replacing
// Join may wait for the rest of [Settle].
type Group interface {
	// Level is how the group is steered.
	Level() Level
	// Why says why no better level is used; "" if the one asked for is.
	Why() string
	// Set gives each place its share of what is new: weights[i] in proportion to
	// their sum, within 1/Slots; missing ones are 0; 0 gets nothing, and every
	// other gets something. All 0 means that nobody is there to serve: then
	// everybody is held, spread over all places alike. Connections that are queued
	// stay where they are. Set is a wish about places with sockets: a weight above
	// 0 for another is [ErrNoPlace], and holds for the others all the same. At level Hash unequal weights are
	// [ErrUnsteered], and are remembered for Flush.
	Set(weights []int) error
	// Flush moves the queue of a tcp socket to places with a weight, and leaves it
	// empty, listening and usable. The place must have weight 0 ([ErrSteered]), and
	// no process may be alive that accepts on it: its accept would fail with EINVAL.
	// Handshakes under way stay with the socket until they are complete; then they
	// are in its queue, it is readable, and a second Flush moves them too.
	// [ErrLast]: no other place is there to take them; hold instead.
	// [ErrNoMigration]: this kernel, or this level without the sysctl, would reset
	// them; hold instead. [ErrDatagrams]: a udp socket keeps its datagrams.
	// After these errors nothing has changed. A queue that is full at the new place
	// takes nobody in: give listeners a backlog with room (TCPMigrateReqFailure in
	// /proc/net/netstat counts those turned away). At level Hash, where nobody can be
	// steered away first, a handshake that ends in the very moment is lost.
	Flush(place int) error
	// Join gives a place its socket: bound to the group's address and, if it is tcp,
	// listening. Sockets join in the order in which they listened (udp: were bound),
	// with no Flush or Leave in between. A new place has weight 0. Joining with the
	// socket that is there already says that somebody shut it down and that it
	// listens again. Another socket replaces the one that is there, which leaves.
	Join(place, fd int) error
	// Leave takes a place's socket out of the group, so that it can be closed: what
	// is queued, and handshakes under way, move to other places with a weight; where
	// they cannot, and somebody waits, it is one of Flush's errors and nothing has
	// changed. To leave at any price shut the socket down first. A udp socket keeps
	// its datagrams, and gets no more: below level EBPF it is connected to itself.
	Leave(place int) error
	// Issue says which generation has a place now; 0: nobody. Its flows come to the place
	// whatever its weight, and so do packets for the connection ids that it issues, which
	// begin with [Prefix]. Of one that has left the place, flows go to the place's heir;
	// packets for its connection ids go where new ones go. Where flows are not
	// remembered, and below level EBPF, it does nothing.
	Issue(place int, gen uint64) error
	// Inherit says to which place flows go whose generation has left a place: first to
	// the place itself, where they wait if nobody is there. (With
	// [Options].ConnectionIDs they go where new ones go then.)
	Inherit(place, heir int) error
	// Counts tells what has been steered since the group was first opened; false
	// where nobody counts (ClassicBPF, Hash).
	Counts() (Counts, bool)
	// Held are descriptors to keep under these names while the supervisor is away,
	// so that a successor takes over with [Options].Held: its steering goes on
	// without a moment's pause. They belong to the group. Empty at level Hash.
	Held() map[string]int
	// Close gives the group back to the kernel's hash and forgets the descriptors.
	// It closes no socket. Do not Close what a successor is to take over.
	Close() error
}

// Counts is what a group has done.
type Counts struct {
	// Steered is, for each place, the connections (SYN packets that arrived for it)
	// or datagrams sent there, without those that were moved.
	Steered []uint64
	// Hashed went where the kernel's hash said, as the place meant had no socket.
	Hashed uint64
	// Moved is the connections that Flush and Leave have moved.
	Moved uint64
}

// Options says how a group is opened. The zero value works.
type Options struct {
	// Sticky keeps a known udp flow (address and port of both sides) with the generation
	// at its place (see Issue) when weights change, and then with the place's heir, until
	// the place's socket leaves. Level EBPF only, and udp only; elsewhere it is ignored
	// and flows of places that keep their weight stay, except as many as a change has
	// to move.
	Sticky bool
	// ConnectionIDs keeps QUIC connections with whom they are: see Issue. What a client
	// calls a server by before it knows better is a flow, as with Sticky, which is
	// implied: not its addresses and ports. What is no QUIC goes as with Sticky. Level
	// EBPF and udp only; elsewhere it is ignored.
	ConnectionIDs bool
	// Flows is how many flows are remembered; the least recently used is forgotten
	// first. Default 65,536; about 100 bytes of kernel memory each.
	Flows int
	// FlowTimeout is how long a silent flow is remembered. Default 2 min; rounded up
	// to units of 1.07 s.
	FlowTimeout time.Duration
	// Held is what an earlier group of the same sockets told. The descriptors are
	// duplicated. What is of no use is made anew, except that a kernel order that
	// does not fit the sockets (ClassicBPF) leaves level Hash.
	Held map[string]int
	// Until is how long Open may wait for sockets that are [Busy], as they are in the map
	// of an earlier group that nobody holds any more: the kernel lets them go some time
	// after that. Then, or at once where it is zero, the next level is taken.
	Until time.Time
}

// Settle is how long after its weight became 0 a socket may still be chosen by a
// handshake that had looked before. A Flush sooner than that waits for the rest.
// Measured: without it 1 to 2 handshakes in 400 restarts were reset or had to be
// repeated after a second (kernel.md, section 2).
const Settle = time.Millisecond

// Level is a way to steer. The zero value asks for the best there is.
type Level uint8

const (
	Best Level = iota
	EBPF
	ClassicBPF
	Hash
)

func (l Level) String() string {
	switch l {
	case Best:
		return "best"
	case EBPF:
		return "ebpf"
	case ClassicBPF:
		return "classic-bpf"
	case Hash:
		return "hash"
	}
	return fmt.Sprintf("level %d", uint8(l))
}

// MarshalText makes a level a word in JSON.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Lockable says whether sockets of such a group may be given to [Lock]. With
// ClassicBPF every change swaps the program, which a locked socket refuses.
func (l Level) Lockable() bool { return l == EBPF || l == Hash }

// Errors after which nothing has changed, but as Set says.
var (
	ErrUnsteered   = errors.New("the kernel's hash cannot be steered: connections are held")
	ErrLast        = errors.New("no other place with a weight could take the connections")
	ErrNoMigration = errors.New("connections cannot be moved (net.ipv4.tcp_migrate_req is 0)")
	ErrDatagrams   = errors.New("datagrams stay in their socket")
	ErrSteered     = errors.New("the place still has a weight")
	ErrNoPlace     = errors.New("no such place")
	ErrClosed      = errors.New("the group is closed")
)
