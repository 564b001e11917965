package supervisor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// outlook looks for a moment whether queues grow, and says when the first will be
// full: for a pause, in which nobody may be there to take from them.
func (s *Supervisor) outlook(ctx context.Context, name string) string {
	before, _ := s.Unit(name)
	began := sys.Now()
	moment := time.NewTimer(outlookFor)
	defer moment.Stop()
	select {
	case <-moment.C:
	case <-ctx.Done():
	case <-s.quit:
	}
	after, _ := s.Unit(name)
	return fullIn(before.Sockets, after.Sockets, time.Duration(sys.Now()-began))
}

// outlookFor is how long a pause looks at the queues.
const outlookFor = 500 * time.Millisecond

// fullIn says when the first queue will be full if it grows as it has.
func fullIn(before, after []SocketStatus, in time.Duration) string {
	was := map[uint64]int{}
	for _, k := range before {
		was[k.Inode] = k.Queued
	}
	first, grown := time.Duration(-1), [2]int{}
	for _, k := range after {
		more := k.Queued - was[k.Inode]
		if k.Backlog <= 0 {
			continue
		}
		if k.Queued >= k.Backlog {
			return "a queue is full: clients are turned away, and try again"
		}
		if more <= 0 || in <= 0 {
			continue
		}
		grown[k.unit()] += more
		left := time.Duration(float64(k.Backlog-k.Queued) / float64(more) * float64(in))
		if first < 0 || left < first {
			first = left
		}
	}
	if first < 0 {
		return "no queue grows"
	}
	var rates []string
	for i, what := range []string{"%.0f a second", "%.0f bytes a second"} {
		if grown[i] > 0 {
			rates = append(rates, fmt.Sprintf(what, float64(grown[i])/in.Seconds()))
		}
	}
	return fmt.Sprintf("at the present rate (%s) the first queue is full in %s", strings.Join(rates, ", "), first.Round(time.Second/10))
}
