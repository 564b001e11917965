package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"time"

	"github.com/sockd/sockd/supervisor"
	"golang.org/x/sys/unix"
)

// An operator gives orders and insists on what was acknowledged.
type operator struct {
	w      *watch
	dir    string
	client *supervisor.Client
	orders int // acknowledged
	again  int // given again, since nobody had acknowledged
}

func asOp(err error, op **net.OpError) bool { return errors.As(err, op) }

// order gives an order until it is acknowledged.
func (o *operator) order(ctx context.Context, unit, verb string) supervisor.Outcome {
	for ctx.Err() == nil {
		out, err := o.client.Verb(ctx, unit, verb, true, patience)
		if err == nil {
			o.orders++
			return out
		}
		if errors.Is(err, supervisor.ErrNotRunning) && ctx.Err() == nil {
			o.w.violation("%s %s: %v", verb, unit, err)
		}
		if api := (*supervisor.APIError)(nil); errors.As(err, &api) {
			o.w.violation("%s %s: %v", verb, unit, err)
		}
		o.again++
	}
	return supervisor.Outcome{}
}

// status asks until somebody answers.
func (o *operator) status(ctx context.Context, unit string) (st supervisor.UnitStatus, ok bool) {
	for ctx.Err() == nil {
		if st, err := o.client.Unit(ctx, unit); err == nil {
			return st, true
		}
	}
	return st, false
}

// run orders until ctx ends: it restarts web, and stops and starts door, which must
// stay as it was told while supervisors come and go.
func (o *operator) run(ctx context.Context) {
	defer o.order(context.Background(), "door", "start") // clients may be waiting
	for ctx.Err() == nil {
		o.order(ctx, "web", "restart")
		if out := o.order(ctx, "door", "stop"); ctx.Err() == nil && out.Outcome != supervisor.Done {
			o.w.violation("stop door: %+v", out)
		}
		for range 1 + rand.IntN(5) {
			o.mustBeDown(ctx)
			o.pause(ctx, rand.N(50*time.Millisecond))
		}
		o.order(ctx, "door", "start")
		if st, ok := o.status(ctx, "door"); ok && !st.Up {
			o.w.violation("door was started, and is not up: %+v", st)
		}
		o.pause(ctx, rand.N(100*time.Millisecond))
	}
}

func (o *operator) mustBeDown(ctx context.Context) {
	if st, ok := o.status(ctx, "door"); ok && (st.Up || st.State != "stopped") {
		o.w.violation("door was stopped, and is %s (up %v)", st.State, st.Up)
	}
	fd, err := unix.Open(filepath.Join(lockFile(o.dir, "door", "1", "a")), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		o.w.violation("%v", err)
		return
	}
	defer unix.Close(fd)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil && ctx.Err() == nil {
		o.w.violation("door was stopped, and a process of it is there: %v", fmt.Sprint(err))
	}
}

func (o *operator) pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
