package keeper

import (
	"sync"
	"time"
)

// A gate is shut while a keeper hands itself over: nobody may then be between a fork
// and its exec, or between a reaping and the record of it. The zero gate is open.
type gate struct {
	mu     sync.Mutex
	inside int
	shut   chan struct{} // nil while open; closed when it opens again
	left   chan struct{} // nil unless somebody waits for the last to leave
}

// enter waits while the gate is shut.
func (g *gate) enter() {
	for {
		g.mu.Lock()
		shut := g.shut
		if shut == nil {
			g.inside++
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		<-shut
	}
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside == 0 && g.left != nil {
		close(g.left)
		g.left = nil
	}
}

// close shuts the gate. It is false, and the gate open again, if somebody is still
// inside after patience.
func (g *gate) close(patience time.Duration) bool {
	g.mu.Lock()
	g.shut = make(chan struct{})
	if g.inside == 0 {
		g.mu.Unlock()
		return true
	}
	left := make(chan struct{})
	g.left = left
	g.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-left:
		return true
	case <-timer.C:
		g.open()
		return false
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
	g.left = nil
}
