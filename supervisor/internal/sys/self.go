package sys

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// timerSlack is how late the timers of a supervisor may be, in nanoseconds. Go has a thread
// that looks after the others 20 µs after each look while anything is done; the kernel
// makes that 70 µs, and it takes a fifth of all the time that a start takes of a supervisor.
const timerSlack = 500_000

// slacken has what this thread forks, and all threads of that, be satisfied with timers as
// late as that (PR_SET_TIMERSLACK in prctl(2)), until it is taken back. The thread must be
// locked. Where the kernel does not do it, timers are as before.
func slacken() (takeBack func()) {
	before, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || before >= timerSlack || unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0) != nil {
		return func() {}
	}
	return func() { unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(before), 0, 0, 0) }
}

// StartSelf starts program, another role of sockd and not a service: its standard
// descriptors are ours, and files become 3, 4, …. It leads a process group of its
// own, so that a terminal's signals reach only us. A *Failure of stage exec tells
// what is wrong with program.
func StartSelf(program string, argv, env []string, files []int) (*Starting, error) {
	list := []uintptr{0, 1, 2}
	for _, fd := range files {
		list = append(list, uintptr(fd))
	}
	pidfd := -1
	pid, err := withNoSignalsHeld(func() (int, error) {
		defer slacken()()
		return syscall.ForkExec(program, argv, &syscall.ProcAttr{
			Env:   env,
			Files: list,
			Sys:   &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd},
		})
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return &Starting{Process: newProcess(pid, pidfd)}, nil
}
