package supervisor

import (
	"context"
	"fmt"
	"time"
)

// A proof is made by looking at a unit's sockets every few milliseconds while it is
// changed. What it says is what the kernel knows: it asks no client and no service.

// A Proof says what clients met while a verb was carried out.
type Proof struct {
	Took  string `json:"took"`
	Looks int    `json:"looks"` // at the sockets
	// Connections is how many came, as Counted says, and how many of those before waited
	// when it began; of udp also datagrams.
	Connections uint64 `json:"connections"`
	// Counted is "steered": each was counted on its way to a sibling; or "seen": those by
	// which queues were seen to grow, so there were at least as many.
	Counted string `json:"counted"`
	// AtMost is how many came at most, where they were only seen and all are of tcp: all that
	// this network namespace has taken, whosever they were.
	AtMost *uint64 `json:"at_most,omitempty"`
	// Before is how many waited already when it began; they are among Connections.
	Before uint64 `json:"waited_before,omitempty"`
	// Lost is what the kernel turned away because a queue was full, or could not move to
	// another sibling. A client may have tried again since.
	Lost uint64 `json:"lost"`
	// LongestWait is the longest time from one look that found a queue empty to the
	// next such look: nobody has waited longer to be accepted. Who waited when it began has
	// done so since the kernel took his connection. Not of udp.
	LongestWait string `json:"longest_wait"`
	// AtLeast: of those, on a Unix socket, the kernel does not tell since when; they waited
	// at least since it began, and LongestWait counts them from then on.
	AtLeast      bool `json:"longest_wait_at_least,omitempty"`
	DeepestQueue int  `json:"deepest_queue"`
	Waiting      int  `json:"waiting,omitempty"` // in queues that have not been empty since: LongestWait is not over for them
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
	switch {
	case p.Counted != "seen" || p.AtMost != nil && *p.AtMost == p.Connections:
	case p.AtMost != nil:
		count = fmt.Sprintf("at least %s, at most %d", count, *p.AtMost)
	default:
		count = "at least " + count
	}
	since := ""
	if p.AtLeast {
		since = " after it began"
	}
	s := fmt.Sprintf("%s, %d lost, nobody waited longer than %s%s (%d looks in %s, deepest queue %d)", count, p.Lost, p.LongestWait, since, p.Looks, p.Took, p.DeepestQueue)
	switch {
	case p.AtLeast:
		s += fmt.Sprintf("; %d waited already, at least since it began", p.Before)
	case p.Before > 0:
		s += fmt.Sprintf("; %d waited already when it began", p.Before)
	}
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
	kernel := readKernelCounts()
	since := waitingSince(before, time.Now())
	if before, ok = s.Unit(name); !ok {
		return ProvenOutcome{}, errNoUnit
	}
	p := newProver(before, since, kernel)
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
		if st, ok := s.Unit(name); !ok || p.look(st, movedConnections(), time.Now()) && late != nil {
			return
		}
	}
}
