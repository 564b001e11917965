package fake

import (
	"sync"
	"time"
)

// A Clock stands still until it is told to move. Its readings are nanoseconds, as
// those of sys.Now are.
type Clock struct {
	mu    sync.Mutex
	now   int64
	waits []wait
}

type wait struct {
	at   int64
	done chan struct{}
}

// NewClock makes one that reads now.
func NewClock(now int64) *Clock { return &Clock{now: now} }

// Now reads the clock.
func (c *Clock) Now() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// At returns a channel that is closed when the clock reads at or later.
func (c *Clock) At(at int64) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	done := make(chan struct{})
	c.waits = append(c.waits, wait{at, done})
	c.ring()
	return done
}

// Advance moves the clock forward.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += int64(d)
	c.ring()
}

func (c *Clock) ring() {
	var still []wait
	for _, w := range c.waits {
		if w.at <= c.now {
			close(w.done)
		} else {
			still = append(still, w)
		}
	}
	c.waits = still
}
