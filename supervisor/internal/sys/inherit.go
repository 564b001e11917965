package sys

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a process that executes a new file in its own place needs to hand itself
// over: descriptors that stay open, signals that wait, and handles made again.

// KeepOpen makes descriptors outlive an exec, or not.
func KeepOpen(fds []int, keep bool) error {
	flag := unix.FD_CLOEXEC
	if keep {
		flag = 0
	}
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag); err != nil {
			return err
		}
	}
	return nil
}

// Handle is the number of the process's pidfd, which stays the Process's own; -1
// where there is none.
func (p *Process) Handle() int {
	n := -1
	if p.pidfd != nil {
		p.control(func(fd int) error { n = fd; return nil })
	}
	return n
}

// Inherit makes a Process of a pidfd that came through an exec; -1: there was none.
func Inherit(pid, pidfd int) *Process {
	if pidfd >= 0 {
		unix.CloseOnExec(pidfd)
	}
	return newProcess(pid, pidfd)
}

// A SavedCgroup is a Cgroup as plain data.
type SavedCgroup struct {
	Dir, Path string
	Next      uint64
}

// Saved is c as plain data; nil has none.
func (c *Cgroup) Saved() *SavedCgroup {
	if c == nil {
		return nil
	}
	return &SavedCgroup{c.dir, c.path, c.next.Load()}
}

// Open makes a Cgroup of what was saved. The folder is there already.
func (s *SavedCgroup) Open() *Cgroup {
	if s == nil {
		return nil
	}
	c := &Cgroup{dir: s.Dir, path: s.Path}
	c.next.Store(s.Next)
	return c
}

// A SavedLeaf is a Leaf that somebody has been born in, as plain data.
type SavedLeaf struct{ Dir, Path string }

// Saved is l as plain data; nil has none.
func (l *Leaf) Saved() *SavedLeaf {
	if l == nil {
		return nil
	}
	return &SavedLeaf{l.dir, l.path}
}

// Open makes a Leaf of what was saved.
func (s *SavedLeaf) Open() *Leaf {
	if s == nil {
		return nil
	}
	return &Leaf{dir: s.Dir, path: s.Path, fd: -1}
}

// HoldSignals keeps signals pending: in every thread of this process where Go can
// reach them all, which it cannot with cgo; else in this one, to which the caller
// must be locked: it is the one that an exec leaves. Release takes it back.
func HoldSignals(sigs ...unix.Signal) (all bool, release func()) {
	all = true
	var set unix.Sigset_t
	for _, sig := range sigs {
		bits := 8 * int(unsafe.Sizeof(set.Val[0]))
		set.Val[(int(sig)-1)/bits] |= 1 << ((int(sig) - 1) % bits)
	}
	change := func(how uintptr) {
		_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_RT_SIGPROCMASK, how, uintptr(unsafe.Pointer(&set)), 0, 8, 0, 0)
		if errno != 0 {
			all = false
			unix.PthreadSigmask(int(how), &set, nil)
		}
		runtime.KeepAlive(&set)
	}
	change(unix.SIG_BLOCK)
	return all, func() { change(unix.SIG_UNBLOCK) }
}

// withNoSignalsHeld runs fork with an empty signal mask, for the child has that of
// the thread that makes it. The mask of ours may come from whoever started us.
func withNoSignalsHeld(fork func() (int, error)) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var none, old unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &none, &old); err == nil {
		defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	}
	return fork()
}
