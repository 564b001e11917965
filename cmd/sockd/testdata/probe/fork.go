package main

import (
	"bytes"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// brood forks a process that forks n which exit at once, and exits too. What runs
// in the children makes raw system calls and nothing else: Go's runtime has not
// come along.
//
//go:norace
//go:noinline
func brood(n int) int {
	pid, _, _ := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 {
		return int(pid)
	}
	for range n {
		if child, _, _ := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0); child == 0 {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	return 0
}

// sleeper forks a process that waits for SIGKILL; 0 if there is none to be had.
//
//go:norace
//go:noinline
func sleeper() int {
	pid, _, err := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if err != 0 {
		return 0
	}
	for pid == 0 {
		syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
	return int(pid)
}

func unsafePointer(b *[64]byte) unsafe.Pointer { return unsafe.Pointer(b) }

func field(status, name string) string {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return string(bytes.TrimSpace([]byte(rest)))
		}
	}
	return ""
}
