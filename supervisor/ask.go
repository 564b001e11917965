package supervisor

import (
	"context"
	"errors"
)

// ask runs do in the loop and returns what it returns, or the context's error.
func (s *Supervisor) ask(ctx context.Context, do func() error) error {
	r := request{do, make(chan error, 1)}
	select {
	case s.requests <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.quit:
		return ErrEnded
	}
	select {
	case err := <-r.done:
		return err
	case <-s.quit:
		return ErrEnded
	}
}

// ErrEnded is returned by calls on a supervisor that has ended.
var ErrEnded = errors.New("the supervisor has ended")
