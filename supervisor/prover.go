package supervisor

import (
	"maps"
	"net/netip"
	"strings"
	"time"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// A prover is a proof in the making.
type prover struct {
	began, over time.Time
	looked      time.Time            // last
	since       map[uint64]time.Time // when a socket was empty, or who waited in it when we began had come; by inode
	gens        map[uint64]bool      // of the processes there were
	sockets     map[uint64]*watched
	proof       Proof
	counts      bool      // all that can be counted is
	bounded     bool      // what is not counted is connections of tcp
	queued      int       // where nobody counts, in all queues
	moved       [2]uint64 // connections, as counted after the last two looks
	kernel      kernelCounts
}

// A watched is what has been seen of one socket, by inode: siblings come and go.
type watched struct {
	drops, steered uint64
	empty          time.Time // when it was last seen empty
	address        string
	look           int // the last that has found it
}

// newProver begins a proof. What it is given was read before st.
func newProver(st UnitStatus, since map[uint64]time.Time, kernel kernelCounts) *prover {
	p := &prover{began: time.Now(), since: since, gens: map[uint64]bool{}, sockets: map[uint64]*watched{}, counts: true, bounded: true, kernel: kernel}
	for _, in := range st.Instances {
		for _, r := range in.Runs {
			p.gens[r.Gen] = true
		}
	}
	p.look(st, movedConnections(), p.began)
	return p
}

// look notes what has changed since the last one, and says whether every queue is
// empty or has been since the change was over. moved is what movedConnections said after
// st was read.
func (p *prover) look(st UnitStatus, moved uint64, now time.Time) (settled bool) {
	if p.proof.Looks++; p.proof.Looks == 1 {
		p.moved = [2]uint64{moved, moved}
	}
	if moved != p.moved[0] { // since before the last look
		p.mingle()
	}
	p.moved = [2]uint64{p.moved[1], moved}
	p.proof.Waiting = 0
	settled = true
	queued := 0 // where nobody counts
	for _, k := range st.Sockets {
		w := p.sockets[k.Inode]
		if w == nil {
			w = &watched{drops: k.Drops, empty: p.looked, address: k.Address} // of one that has come since
			if k.Steered != nil {
				w.steered = *k.Steered // also of a sibling that comes later: another had the place before
			}
			p.sockets[k.Inode] = w
			if p.proof.Looks == 1 {
				p.first(k, w, now)
			}
		}
		w.look = p.proof.Looks
		if k.Retiring { // who is dropped tries again
			w.drops = k.Drops
		}
		if k.Drops > w.drops {
			p.proof.Lost += k.Drops - w.drops
			w.drops = k.Drops
		}
		if k.Steered != nil && *k.Steered > w.steered {
			p.proof.Connections += *k.Steered - w.steered
			w.steered = *k.Steered
		}
		if k.datagrams() {
			p.bounded = p.bounded && k.Steered != nil
			p.counts = p.counts && k.Steered != nil
			continue // what waits there is bytes
		}
		if k.Steered == nil {
			p.counts = false
			p.bounded = p.bounded && strings.HasPrefix(k.Network, "tcp")
			queued += k.Queued
		}
		p.proof.DeepestQueue = max(p.proof.DeepestQueue, k.Queued)
		p.proof.longest = max(p.proof.longest, now.Sub(w.empty))
		if k.Queued == 0 {
			w.empty = now
		}
		if w.empty.Before(p.over) {
			p.proof.Waiting += k.Queued
			settled = false
		}
	}
	if more := queued - p.queued; more > 0 { // in all of them: some are moved from one to another
		p.proof.Connections += uint64(more)
	}
	p.queued, p.looked = queued, now
	maps.DeleteFunc(p.sockets, func(_ uint64, w *watched) bool { return w.look < p.proof.Looks }) // closed
	return settled
}

// mingle is for connections that were moved: whoever waits in a sibling may have waited
// in any other before.
func (p *prover) mingle() {
	first := map[string]time.Time{}
	for _, w := range p.sockets {
		if at, ok := first[w.address]; !ok || w.empty.Before(at) {
			first[w.address] = w.empty
		}
	}
	for _, w := range p.sockets {
		w.empty = first[w.address]
	}
}

// first notes who waits in a socket already when we begin.
func (p *prover) first(k SocketStatus, w *watched, now time.Time) {
	w.empty = now
	if k.datagrams() || k.Queued == 0 {
		return
	}
	p.proof.Before += uint64(k.Queued)
	if k.Steered != nil {
		p.proof.Connections += uint64(k.Queued) // counted before; of others the queue has grown by them
	}
	if at, known := p.since[k.Inode]; known {
		w.empty = at
	} else {
		p.proof.AtLeast = true
	}
}

func (k SocketStatus) datagrams() bool {
	return strings.HasPrefix(k.Network, "udp") || k.Network == "unixgram"
}

// waitingSince tells of each socket that it was empty just now, or since when the first
// of those who wait in it has waited at most; of Unix sockets the kernel does not tell.
func waitingSince(st UnitStatus, now time.Time) map[uint64]time.Time {
	since := map[uint64]time.Time{}
	for _, k := range st.Sockets {
		if k.Queued == 0 {
			since[k.Inode] = now
			continue
		}
		addr, err := netip.ParseAddrPort(k.Address)
		if err != nil || k.datagrams() {
			continue
		}
		if oldest, err := sys.OldestWaiting(addr); err == nil { // on any sibling: nobody in this one has waited longer
			since[k.Inode] = now.Add(-oldest)
		}
	}
	return since
}

func (p *prover) result(after UnitStatus) Proof {
	proof := p.proof
	proof.Took = time.Since(p.began).Round(time.Millisecond).String()
	proof.LongestWait = proof.longest.Round(time.Millisecond).String()
	proof.Counted = "steered"
	now := readKernelCounts()
	if !p.counts {
		proof.Counted = "seen"
		if p.bounded && now.opened > 0 {
			most := now.opened - p.kernel.opened + proof.Before
			proof.Connections, proof.AtMost = min(proof.Connections, most), &most
		}
	}
	for _, in := range after.Instances {
		if e := in.LastExit; e != nil && p.gens[e.Gen] && e.Signal == "SIGKILL" {
			proof.Killed++
		}
	}
	proof.Lost += now.unmoved - p.kernel.unmoved
	proof.Resets = now.resets - p.kernel.resets
	return proof
}
