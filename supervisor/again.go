package supervisor

import (
	"context"
	"time"
)

// What could not be had, and may be later, is tried again after againSoon, then twice
// that, and so on.
const (
	againSoon = 100 * time.Millisecond
	againLate = 30 * time.Second
)

// tryAgain does something in the loop, later and later, until it is done or the supervisor
// ends.
func (s *Supervisor) tryAgain(do func() (done bool)) {
	go func() {
		for wait := againSoon; ; wait = min(2*wait, againLate) {
			select {
			case <-time.After(wait):
			case <-s.quit:
				return
			}
			done := false
			err := s.ask(context.Background(), func() error {
				if done = do(); done {
					s.settleFollowing()
				}
				return nil
			})
			if done || err != nil {
				return
			}
		}
	}()
}
