package trampoline

import (
	"syscall"
	"unsafe"
)

// MaxCPU is the highest number of a CPU, counted from 1: the most that Linux can be
// built for.
const MaxCPU = 8192

// A CPUSet is the kernel's mask of CPUs: one bit for each, in machine words.
type CPUSet [MaxCPU / bits]uint

const bits = 8 * int(unsafe.Sizeof(uint(0)))

// OnlyCPU is the set of one, counted from 1; nil if there cannot be such a one.
func OnlyCPU(cpu int) *CPUSet {
	if cpu < 1 || cpu > MaxCPU {
		return nil
	}
	set := new(CPUSet)
	set[(cpu-1)/bits] = 1 << ((cpu - 1) % bits)
	return set
}

// runOn pins this thread, which exec keeps (sched_setaffinity(2)).
func runOn(cpu int) syscall.Errno {
	set := OnlyCPU(cpu)
	_, _, err := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(*set), uintptr(unsafe.Pointer(set)))
	return err
}
