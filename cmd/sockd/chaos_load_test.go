package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A target is a socket that clients connect to.
type target struct{ unit, network, address string }

// A crowd is what clients have seen. A connection that ends without an answer counts
// as cut if a process of its unit was killed while it lasted: it may have been
// accepted by that one. Any other is lost, and so is one that was refused.
type crowd struct {
	served, cut atomic.Int64
	mu          sync.Mutex
	failed      []failure
	lost        []string
	kills       map[string][]span // by unit
	longest     time.Duration
}

// A failure is a connection that got no answer.
type failure struct {
	unit string
	span
	err error
}

// A span is from before a process was killed to when it was dead.
type span struct{ from, to time.Time }

func (l *crowd) killed(unit string, s span) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kills[unit] = append(l.kills[unit], s)
}

// run connects about rate times a second until quit is closed, and returns when the
// last connection has ended.
func (l *crowd) run(targets []target, rate int, quit <-chan struct{}) {
	const workers = 50
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			tick := time.NewTicker(time.Second * workers / time.Duration(rate))
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					l.connect(targets[rand.IntN(len(targets))])
				case <-quit:
					return
				}
			}
		})
	}
	wg.Wait()
}

func (l *crowd) connect(t target) {
	began := time.Now()
	err := ask(t)
	ended := time.Now()
	if err == nil {
		l.served.Add(1)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.longest = max(l.longest, ended.Sub(began))
	if err != nil {
		l.failed = append(l.failed, failure{t.unit, span{began, ended}, err})
	}
}

// judge sorts the failures, when all kills are known.
func (l *crowd) judge() {
	for _, f := range l.failed {
		refused := asOp(f.err, new(*net.OpError))
		if !refused && slices.ContainsFunc(l.kills[f.unit], f.overlaps) {
			l.cut.Add(1)
		} else {
			l.lost = append(l.lost, fmt.Sprintf("%s after %v: %v", f.unit, f.to.Sub(f.from), f.err))
		}
	}
}

func (s span) overlaps(o span) bool { return !o.from.After(s.to) && !o.to.Before(s.from) }

// ask wants an answer of the target's unit. An error of connecting is a *net.OpError.
func ask(t target) error {
	c, err := net.DialTimeout(t.network, t.address, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	answer, err := io.ReadAll(c)
	if err != nil {
		return fmt.Errorf("reading: %s", err) // no *net.OpError: it was accepted
	}
	if !strings.HasPrefix(string(answer), t.unit+" ") || !strings.HasSuffix(string(answer), "\n") {
		return fmt.Errorf("answered %q", answer)
	}
	return nil
}
