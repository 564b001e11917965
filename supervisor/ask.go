package supervisor

import (
	"context"
	"errors"
)

// ask runs do in the loop and returns what it returns, or the context's error.
func (s *Supervisor) ask(ctx context.Context, do func() error) error {
	return s.put(ctx, request{do: do, done: make(chan error, 1)})
}

// askSafe is ask for what is done in safe mode too.
func (s *Supervisor) askSafe(ctx context.Context, do func() error) error {
	return s.put(ctx, request{do: do, done: make(chan error, 1), safe: true})
}

func (s *Supervisor) put(ctx context.Context, r request) error {
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
