package sys

import (
	"sync/atomic"
	"time"

	"github.com/sockd/sockd/supervisor/internal/sys/direct"
)

// Direct tells whether programs can be started without the trampoline: nil, or
// what is in the way. The first call tries it out, which takes some milliseconds;
// without one, the first Start pays for it.
func Direct() error { return direct.SelfTest() }

const (
	// directPatience is how long Start waits for exec before it leaves that to Execed.
	directPatience = 20 * time.Millisecond

	// directMost bounds the threads that wait for an exec. As many at a time means
	// that they hang, on a dead mount for instance; then the trampoline is better.
	directMost = 32
)

var (
	directWaiting atomic.Int32
	directOff     atomic.Bool
)

// AlwaysTrampoline makes every later start go through the trampoline, or no longer.
// It is for tests, and for finding out who is to blame.
func AlwaysTrampoline(always bool) { directOff.Store(always) }

// A fate is what has come of a child that was started directly.
type fate struct {
	pid, pidfd int
	failure    *Failure
	err        error // there is no child
}

// startDirect starts s without the trampoline; not ok if it has to be with it, for
// whatever is wrong with the job itself is left to the trampoline to say.
func startDirect(s *Spec) (child *Starting, ok bool, err error) {
	if directOff.Load() || direct.SelfTest() != nil {
		return nil, false, nil
	}
	if directWaiting.Add(1) > directMost {
		directWaiting.Add(-1)
		return nil, false, nil
	}
	plan, made, err := plan(s)
	if err != nil {
		directWaiting.Add(-1)
		closeAll(made)
		return nil, false, nil
	}
	told := make(chan fate, 1)
	go func() {
		var f fate
		f.pid, f.pidfd, f.failure, f.err = direct.Start(plan)
		directWaiting.Add(-1)
		closeAll(made)
		told <- f
	}()
	f := born(plan, told)
	if f.err != nil {
		return nil, true, f.err
	}
	return &Starting{Process: newProcess(f.pid, f.pidfd), fates: told}, true, nil
}

// fate is Execed without a trampoline: known by now in most cases, but an exec may hang.
func (s *Starting) fate() error {
	switch f := <-s.fates; {
	case f.failure == nil:
		return nil
	case f.failure.Stage == "killed":
		return s.endedEarly()
	default:
		return f.failure
	}
}

// born waits until the child has come to exec, or for a while and then until
// there is a child. It puts the fate it has heard of back.
func born(p *direct.Plan, told chan fate) fate {
	patience := time.NewTimer(directPatience)
	defer patience.Stop()
	for {
		select {
		case f := <-told:
			told <- f
			return f
		case <-patience.C:
			if pid, pidfd, ok := p.Child(); ok {
				return fate{pid: pid, pidfd: pidfd}
			}
			patience.Reset(directPatience) // the kernel itself takes its time
		}
	}
}

// plan also says what it has opened for it, to be closed when the child has exec'd.
func plan(s *Spec) (p *direct.Plan, made []int, err error) {
	null, err := devNull()
	if err != nil {
		return nil, nil, err
	}
	output := s.Output
	if output < 0 {
		output = null
	}
	d := direct.Spec{Job: s.Job, Files: append([]int{null, output, output}, s.Files...), Cgroup: -1}
	if s.Leaf != nil {
		d.Cgroup = s.Leaf.fd
	}
	made = bringDown(d.Files)
	p, err = direct.Prepare(&d)
	return p, made, err
}
