package sys

import (
	"fmt"
	"syscall"
)

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
