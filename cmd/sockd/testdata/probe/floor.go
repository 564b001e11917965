package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// floor starts one clock after the other, each in a session of its own as services
// are, and says how long after its last words a plain poll of its pidfd has told of
// its end, and when: what no supervisor can do sooner.
func floor(milliseconds int) {
	for {
		fd := -1
		clock := exec.Command("/proc/self/exe", "clock", strconv.Itoa(milliseconds)) // allowed: the floor beside which sockd is measured
		clock.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &fd}
		var told strings.Builder
		clock.Stdout = &told
		if err := clock.Start(); err != nil {
			fmt.Fprintln(os.Stderr, "probe:", err)
			os.Exit(1)
		}
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for n := 0; n == 0; {
			n, _ = unix.Poll(poll, -1)
			n = max(n, 0) // EINTR
		}
		heard := time.Now().UnixNano()
		unix.Close(fd)
		clock.Wait()
		at, _ := strconv.ParseInt(strings.TrimSpace(told.String()), 10, 64)
		fmt.Println("floor", heard, heard-at)
	}
}
