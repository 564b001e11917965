package supervisor

import (
	"testing"
	"time"
)

// A prover counts by what queues have grown, all together, where nobody else counts; and
// of those who were there before it says so.
func TestProverLooks(t *testing.T) {
	const ms = time.Millisecond
	count := func(n uint64) *uint64 { return &n }
	far := func(k SocketStatus) SocketStatus { k.Address = "127.0.0.1:2"; return k }
	k := func(inode uint64, queued int, steered *uint64) SocketStatus {
		return SocketStatus{Network: "tcp", Inode: inode, Queued: queued, Steered: steered}
	}
	began := time.Now()
	for _, c := range []struct {
		name    string
		since   map[uint64]time.Time
		moved   []uint64         // connections, by the kernel's counter; nil: none
		looks   [][]SocketStatus // 10 ms apart
		want    Proof
		longest time.Duration
	}{
		{"nobody", nil, nil, [][]SocketStatus{{k(1, 0, nil)}, {k(1, 0, nil)}}, Proof{}, 10 * ms},
		{"three come and are served", nil, nil, [][]SocketStatus{{k(1, 0, nil)}, {k(1, 3, nil)}, {k(1, 0, nil)}},
			Proof{Connections: 3, DeepestQueue: 3}, 20 * ms},
		{"three are moved from one to another", nil, nil, [][]SocketStatus{{k(1, 0, nil), k(2, 0, nil)}, {k(1, 3, nil), k(2, 0, nil)}, {k(1, 0, nil), k(2, 3, nil)}},
			Proof{Connections: 3, DeepestQueue: 3}, 20 * ms},
		{"two had waited for 50 ms", map[uint64]time.Time{1: began.Add(-50 * ms)}, nil, [][]SocketStatus{{k(1, 2, nil)}, {k(1, 0, nil)}},
			Proof{Connections: 2, Before: 2, DeepestQueue: 2}, 60 * ms},
		{"two had waited, and were counted then", map[uint64]time.Time{1: began.Add(-50 * ms)}, nil, [][]SocketStatus{{k(1, 2, count(7))}, {k(1, 0, count(7))}, {k(1, 1, count(8))}},
			Proof{Connections: 3, Before: 2, DeepestQueue: 2}, 60 * ms},
		{"two had waited, nobody knows for how long", nil, nil, [][]SocketStatus{{k(1, 2, nil)}, {k(1, 2, nil)}, {k(1, 0, nil)}},
			Proof{Connections: 2, Before: 2, AtLeast: true, DeepestQueue: 2}, 20 * ms},
		{"moved after 20 ms, to wait for as long", nil, []uint64{7, 7, 8, 8, 8},
			[][]SocketStatus{{k(1, 0, nil), k(2, 0, nil)}, {k(1, 1, nil), k(2, 0, nil)}, {k(1, 0, nil), k(2, 1, nil)}, {k(1, 0, nil), k(2, 1, nil)}, {k(1, 0, nil), k(2, 0, nil)}},
			Proof{Connections: 1, DeepestQueue: 1}, 40 * ms},
		{"moved right after a look", nil, []uint64{7, 8, 8, 8},
			[][]SocketStatus{{k(1, 0, nil), k(2, 0, nil)}, {k(1, 1, nil), k(2, 0, nil)}, {k(1, 0, nil), k(2, 1, nil)}, {k(1, 0, nil), k(2, 0, nil)}},
			Proof{Connections: 1, DeepestQueue: 1}, 30 * ms},
		{"moved from a socket that is closed then", nil, []uint64{7, 7, 8, 8},
			[][]SocketStatus{{k(1, 0, nil), k(2, 0, nil)}, {k(1, 1, nil), k(2, 0, nil)}, {k(2, 1, nil)}, {k(2, 0, nil)}},
			Proof{Connections: 1, DeepestQueue: 1}, 30 * ms},
		{"moved elsewhere", nil, []uint64{7, 7, 8, 9},
			[][]SocketStatus{{k(1, 0, nil), far(k(2, 0, nil))}, {k(1, 1, nil), far(k(2, 0, nil))}, {k(1, 0, nil), far(k(2, 1, nil))}, {k(1, 0, nil), far(k(2, 0, nil))}},
			Proof{Connections: 1, DeepestQueue: 1}, 20 * ms},
		{"a socket has come between two looks", nil, nil, [][]SocketStatus{{}, {}, {k(1, 1, nil)}},
			Proof{Connections: 1, DeepestQueue: 1}, 10 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &prover{since: c.since, sockets: map[uint64]*watched{}}
			for i, sockets := range c.looks {
				moved := uint64(0)
				if c.moved != nil {
					moved = c.moved[i]
				}
				p.look(UnitStatus{Sockets: sockets}, moved, began.Add(time.Duration(i)*10*ms))
			}
			got := p.proof
			c.want.Looks = len(c.looks)
			if p.proof.longest != c.longest {
				t.Errorf("longest wait %v, want %v", p.proof.longest, c.longest)
			}
			if got.longest, got.Waiting = 0, 0; got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestProofInWords(t *testing.T) {
	count := func(n uint64) *uint64 { return &n }
	base := Proof{Took: "90ms", Looks: 9, Connections: 5, LongestWait: "13ms", DeepestQueue: 4}
	for _, c := range []struct {
		name string
		with func(p *Proof)
		want string
	}{
		{"each was counted", func(p *Proof) { p.Counted = "steered" },
			"5 connections, 0 lost, nobody waited longer than 13ms (9 looks in 90ms, deepest queue 4)"},
		{"seen", func(p *Proof) { p.Counted = "seen" },
			"at least 5 connections, 0 lost, nobody waited longer than 13ms (9 looks in 90ms, deepest queue 4)"},
		{"seen, of tcp", func(p *Proof) { p.Counted, p.AtMost = "seen", count(8) },
			"at least 5 connections, at most 8, 0 lost, nobody waited longer than 13ms (9 looks in 90ms, deepest queue 4)"},
		{"seen, and there were no others", func(p *Proof) { p.Counted, p.AtMost = "seen", count(5) },
			"5 connections, 0 lost, nobody waited longer than 13ms (9 looks in 90ms, deepest queue 4)"},
		{"some had waited", func(p *Proof) { p.Before = 2 },
			"5 connections, 0 lost, nobody waited longer than 13ms (9 looks in 90ms, deepest queue 4); 2 waited already when it began"},
		{"nobody knows for how long", func(p *Proof) { p.Before, p.AtLeast = 2, true },
			"5 connections, 0 lost, nobody waited longer than 13ms after it began (9 looks in 90ms, deepest queue 4); 2 waited already, at least since it began"},
	} {
		p := base
		c.with(&p)
		if got := p.String(); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
	}
}
