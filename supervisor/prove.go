package supervisor

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// A proof is made by looking at a unit's sockets every few milliseconds while it is
// changed. What it says is what the kernel knows: it asks no client and no service.

// A Proof says what clients met while a verb was carried out.
type Proof struct {
	Took  string `json:"took"`
	Looks int    `json:"looks"` // at the sockets
	// Connections is how many came, as Counted says; of udp also datagrams.
	Connections uint64 `json:"connections"`
	// Counted is "steered": each was counted on its way to a sibling; or "seen": those
	// that were seen in a queue and then were not, so there were at least as many.
	Counted string `json:"counted"`
	// Lost is what the kernel turned away because a queue was full, or could not move to
	// another sibling. A client may have tried again since.
	Lost uint64 `json:"lost"`
	// LongestWait is the longest time from one look that found a queue empty to the
	// next such look: nobody has waited longer to be accepted. Not of udp.
	LongestWait  string `json:"longest_wait"`
	DeepestQueue int    `json:"deepest_queue"`
	Waiting      int    `json:"waiting,omitempty"` // in queues that have not been empty since: LongestWait is not over for them
	// Killed is how many of the unit's old processes a signal that they cannot catch has
	// ended: what those had accepted is lost too, and nobody has counted it.
	Killed int `json:"killed,omitempty"`
	// Resets is how many connections this network namespace has reset, whatever for and
	// whosever they were: a hint, where others are quiet.
	Resets uint64 `json:"namespace_resets,omitempty"`

	longest time.Duration
}

// A ProvenOutcome is what POST /v1/units/NAME/VERB?prove=true answers.
type ProvenOutcome struct {
	Outcome
	Proof *Proof `json:"proof,omitempty"`
	// NoProof is why there is none: the client says so, if the supervisor has ended meanwhile.
	NoProof string `json:"no_proof,omitempty"`
}

// String is the proof in one line.
func (p Proof) String() string {
	count := fmt.Sprintf("%d connections", p.Connections)
	if p.Counted == "seen" {
		count = "at least " + count
	}
	s := fmt.Sprintf("%s, %d lost, nobody waited longer than %s (%d looks in %s, deepest queue %d)", count, p.Lost, p.LongestWait, p.Looks, p.Took, p.DeepestQueue)
	if p.Waiting > 0 {
		s += fmt.Sprintf("; %d still wait", p.Waiting)
	}
	if p.Killed > 0 {
		s += fmt.Sprintf("; %d processes had to be killed, with what they had accepted", p.Killed)
	}
	return s
}

const (
	proofLook     = 10 * time.Millisecond
	proofPatience = time.Second // for queues to become empty after the change
)

// proven does a verb and watches what it does to clients.
func (s *Supervisor) proven(ctx context.Context, name string, do func(context.Context) (Outcome, error)) (ProvenOutcome, error) {
	before, ok := s.Unit(name)
	if !ok {
		return ProvenOutcome{}, errNoUnit
	}
	p := newProver(before)
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.prove(p, name, done)
	}()
	out, err := do(ctx)
	close(done)
	<-watched
	if err != nil {
		return ProvenOutcome{}, err
	}
	after, _ := s.Unit(name)
	proof := p.result(after)
	return ProvenOutcome{Outcome: out, Proof: &proof}, nil
}

// prove looks until the change is done and queues have been empty since, or for a
// while longer.
func (s *Supervisor) prove(p *prover, name string, done <-chan struct{}) {
	tick := time.NewTicker(proofLook)
	defer tick.Stop()
	var late <-chan time.Time
	for {
		select {
		case <-tick.C:
		case <-done:
			done, late, p.over = nil, time.After(proofPatience), time.Now()
		case <-late:
			return
		case <-s.quit:
			return
		}
		if st, ok := s.Unit(name); !ok || p.look(st, time.Now()) && late != nil {
			return
		}
	}
}

// A prover is a proof in the making.
type prover struct {
	began, over time.Time
	gens        map[uint64]bool // of the processes there were
	sockets     map[uint64]*watched
	proof       Proof
	counts      bool // all that can be counted is
	kernel      kernelCounts
}

// A watched is what has been seen of one socket, by inode: siblings come and go.
type watched struct {
	drops, steered uint64
	queued         int
	empty          time.Time // when it was last seen empty
}

func newProver(st UnitStatus) *prover {
	p := &prover{began: time.Now(), gens: map[uint64]bool{}, sockets: map[uint64]*watched{}, counts: true, kernel: readKernelCounts()}
	for _, in := range st.Instances {
		for _, r := range in.Runs {
			p.gens[r.Gen] = true
		}
	}
	p.look(st, p.began)
	return p
}

// look notes what has changed since the last one, and says whether every queue is
// empty or has been since the change was over.
func (p *prover) look(st UnitStatus, now time.Time) (settled bool) {
	p.proof.Looks++
	p.proof.Waiting = 0
	settled = true
	for _, k := range st.Sockets {
		w := p.sockets[k.Inode]
		if w == nil {
			w = &watched{drops: k.Drops, empty: now}
			if k.Steered != nil {
				w.steered = *k.Steered // also of a sibling that comes later: another had the place before
			}
			p.sockets[k.Inode] = w
		}
		datagrams := strings.HasPrefix(k.Network, "udp") || k.Network == "unixgram"
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
		if datagrams {
			p.counts = p.counts && k.Steered != nil
			continue // what waits there is bytes
		}
		if k.Steered == nil {
			p.counts = false
			if k.Queued < w.queued {
				p.proof.Connections += uint64(w.queued - k.Queued)
			}
		}
		w.queued = k.Queued
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
	return settled
}

func (p *prover) result(after UnitStatus) Proof {
	proof := p.proof
	proof.Took = time.Since(p.began).Round(time.Millisecond).String()
	proof.LongestWait = proof.longest.Round(time.Millisecond).String()
	proof.Counted = "steered"
	if !p.counts {
		proof.Counted = "seen"
	}
	for _, in := range after.Instances {
		if e := in.LastExit; e != nil && p.gens[e.Gen] && e.Signal == "SIGKILL" {
			proof.Killed++
		}
	}
	now := readKernelCounts()
	proof.Lost += now.unmoved - p.kernel.unmoved
	proof.Resets = now.resets - p.kernel.resets
	return proof
}

// kernelCounts are of the network namespace. Only sockd moves connections in most.
type kernelCounts struct{ unmoved, resets uint64 }

func readKernelCounts() (c kernelCounts) {
	c.unmoved = netCounter("/proc/net/netstat", "TcpExt", "TCPMigrateReqFailure")
	c.resets = netCounter("/proc/net/snmp", "Tcp", "OutRsts")
	return c
}

// netCounter reads one counter of a file that has two lines for each protocol: names
// and values. What is not there counts nothing.
func netCounter(file, protocol, name string) (n uint64) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != protocol+":" {
			continue
		}
		if names == nil {
			names = words
			continue
		}
		for i := range min(len(names), len(words)) {
			if names[i] == name {
				fmt.Sscan(words[i], &n)
			}
		}
	}
	return n
}
