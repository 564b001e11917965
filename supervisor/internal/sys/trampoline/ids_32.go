//go:build 386 || arm

package trampoline

import "syscall"

// The calls without 32 in their names take ids of 16 bits here.
const (
	sysSetgroups = syscall.SYS_SETGROUPS32
	sysSetresgid = syscall.SYS_SETRESGID32
	sysSetresuid = syscall.SYS_SETRESUID32
)
