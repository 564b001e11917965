//go:build amd64 || arm64

package direct

import (
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Start makes the child and returns when it has become the program or has failed.
// With a failure there is a child all the same, dead and still to be reaped by the
// caller; stage killed means that somebody ended it before it came to exec. With
// an error there is none: the system call that makes processes failed.
//
// pidfd is -1 where the kernel gives none (before Linux 5.2).
func Start(p *Plan) (pid, pidfd int, failure *Failure, err error) {
	if p.used.Swap(true) {
		return 0, -1, nil, errUsed
	}
	p.call.prepare(p)
	if p.spec.Credential != nil {
		defer becoming.begin()()
	}
	r, errno := vfork(p)
	runtime.KeepAlive(p)
	if errno != 0 {
		return 0, -1, nil, syscall.Errno(errno)
	}
	return int(r), int(p.report.pidfd), p.failure(), nil
}

// Child tells any goroutine who the child is while Start is still under way; false
// before the child runs. The pidfd is the one that Start is going to return.
func (p *Plan) Child() (pid, pidfd int, ok bool) {
	pid = int(atomic.LoadInt32(&p.report.pid))
	if pid == 0 {
		return 0, -1, false
	}
	return pid, int(atomic.LoadInt32(&p.report.pidfd)), true
}

// A call holds a system call's number and arguments.
type call struct {
	trap, a1, a2, a3 uintptr
	saved            uint64 // the thread's signal mask
	clone            cloneArgs
}

// cloneArgs is struct clone_args of clone3(2), as far as Linux 5.7.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal uint64
	stack, stackSize, tls, setTID, setTIDSize     uint64
	cgroup                                        uint64
}

// CLONE_VFORK is not only for waiting: it tells the kernel that the child is about
// to leave our memory. Without it the OOM killer of a cgroup that the child is
// born into could choose the child, and then kills all who share its memory, which
// is us (in_vfork in mm/oom_kill.c).
//
// CLONE_FILES shares the table of descriptors until the child makes its own out of the
// part that it needs.
const cloneFlags = unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_PIDFD | unix.CLONE_FILES

// prepare chooses the system call. clone3 only where it must be: container filters
// that cannot look into its argument answer ENOSYS.
func (c *call) prepare(p *Plan) {
	// A little below the top: the child's function finds its argument there.
	top := (uintptr(unsafe.Pointer(&p.stack)) + unsafe.Sizeof(p.stack) - 64) &^ 15
	pidfd := unsafe.Pointer(&p.report.pidfd)
	if p.spec.Cgroup < 0 {
		c.trap, c.a1, c.a2, c.a3 = unix.SYS_CLONE, cloneFlags|uintptr(unix.SIGCHLD), top, uintptr(pidfd)
		return
	}
	bottom := uintptr(unsafe.Pointer(&p.stack))
	c.clone = cloneArgs{
		flags:      cloneFlags | unix.CLONE_INTO_CGROUP,
		pidfd:      uint64(uintptr(pidfd)),
		exitSignal: uint64(unix.SIGCHLD),
		stack:      uint64(bottom),
		stackSize:  uint64(top - bottom),
		cgroup:     uint64(p.spec.Cgroup),
	}
	c.trap, c.a1, c.a2 = unix.SYS_CLONE3, uintptr(unsafe.Pointer(&c.clone)), unsafe.Sizeof(c.clone)
}

//go:linkname entersyscall runtime.entersyscall
func entersyscall()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// clone makes the system call; in the child, on its own stack, it calls child(p)
// and never returns. In clone_*.s.
func clone(trap, a1, a2, a3 uintptr, p unsafe.Pointer) (r, errno uintptr)

const sigSetSize = 8 // of the kernel's signal set in bytes

var allSignals = ^uint64(0)

// vfork is a system call to the scheduler, and a long one at times. package
// syscall forks differently: it keeps its processor and ForkLock, and so a child
// that hangs stops every later fork and, at the next garbage collection, the whole
// process. ForkLock is there to keep descriptors from leaking into the child; ours
// closes what it was not given.
//
// Signals are blocked, for until the child has reset its handlers a signal to it
// would run Go's in our memory, on a thread that Go does not know of.
//
//go:nosplit
//go:norace
//go:noinline
//go:nocheckptr
func vfork(p *Plan) (pid, errno uintptr) {
	entersyscall()
	raw(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&allSignals)), uintptr(unsafe.Pointer(&p.call.saved)), sigSetSize)
	pid, errno = clone(p.call.trap, p.call.a1, p.call.a2, p.call.a3, unsafe.Pointer(p))
	raw(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&p.call.saved)), 0, sigSetSize)
	exitsyscall()
	return pid, errno
}

// failure reads the report. The details are those of the trampoline.
func (p *Plan) failure() *Failure {
	r := &p.report
	if r.errno == 0 {
		if r.step == stepExec {
			return nil
		}
		return &Failure{Stage: "killed", Detail: "before exec", Errno: syscall.ECANCELED}
	}
	f := &Failure{Errno: syscall.Errno(r.errno)}
	switch r.step {
	case stepPlace:
		f.Stage = "fork"
	case stepClose:
		f.Stage = "descriptors"
	case stepCPU:
		f.Stage, f.Detail = "cpu", strconv.Itoa(p.spec.CPU-1)
	case stepGroups:
		f.Stage, f.Detail = "user", "supplementary groups"
	case stepGID:
		f.Stage, f.Detail = "user", "gid "+strconv.FormatUint(uint64(p.spec.Credential.GID), 10)
	case stepUID:
		f.Stage, f.Detail = "user", "uid "+strconv.FormatUint(uint64(p.spec.Credential.UID), 10)
	case stepDirectory:
		f.Stage, f.Detail = "directory", p.spec.Dir
	case stepExec:
		f.Stage, f.Detail = "exec", p.tried()
	}
	return f
}

// tried names the program that could not be executed.
func (p *Plan) tried() string {
	r := &p.report
	if int(r.at) < len(p.programs) {
		file := unix.BytePtrToString(p.programs[r.at])
		if r.there {
			return file + ": its interpreter or loader"
		}
		return file
	}
	if syscall.Errno(r.errno) == syscall.EACCES {
		return p.spec.Argv[0]
	}
	return p.spec.Argv[0] + " in PATH"
}
