//go:build amd64 || arm64

package direct

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys/trampoline"
)

// What follows runs in the child: in our memory, while our threads go on, but
// unknown to Go's runtime. So it makes raw system calls and nothing else. It must
// not allocate, grow its stack (nosplit), store a pointer (the write barrier of a
// garbage collection under way is the runtime's), take an address of a variable of
// its own, or be watched (norace). It writes to nothing but the Plan.

// raw is syscall.RawSyscall6 with four arguments. That one takes too much stack in a
// program built for a debugger, where nothing is inlined. In clone_*.s.
func raw(trap, a1, a2, a3, a4 uintptr) (r uintptr, err syscall.Errno)

// child prepares this process as trampoline.run does, in the same order, and
// becomes the program.
//
//go:nosplit
//go:norace
//go:noinline
//go:nocheckptr
func child(p *Plan) {
	pid, _ := raw(unix.SYS_GETPID, 0, 0, 0, 0)
	p.report.pid = int32(pid)
	p.report.step = stepClose
	// Our own descriptors from here on, and none above those that we need: copying and
	// closing thousands would take longer than all the rest.
	if _, err := raw(unix.SYS_CLOSE_RANGE, uintptr(p.top), uintptr(^uint32(0)), unix.CLOSE_RANGE_UNSHARE, 0); err != 0 {
		die(p, err)
	}
	for i := range p.pidAt {
		decimal(p.pidAt[i], uint64(pid))
	}
	identify(p, pid)
	p.report.step = stepPlace
	if _, err := raw(unix.SYS_SETSID, 0, 0, 0, 0); err != 0 {
		die(p, err)
	}
	place(p)
	p.report.step = stepClose
	// Closed now, and not on exec: while we hang on a dead mount we are to keep
	// nobody's sockets and pipes open.
	if _, err := raw(unix.SYS_CLOSE_RANGE, uintptr(len(p.fds)), uintptr(^uint32(0)), 0, 0); err != 0 {
		die(p, err)
	}
	if p.spec.Umask >= 0 {
		raw(unix.SYS_UMASK, uintptr(p.spec.Umask), 0, 0, 0)
	}
	if len(p.score) > 0 {
		setScore(p)
	}
	if p.cpus != nil {
		p.report.step = stepCPU
		if _, err := raw(unix.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(*p.cpus), uintptr(unsafe.Pointer(p.cpus)), 0); err != 0 {
			die(p, err)
		}
	}
	become(p)
	p.report.step = stepDirectory
	if p.dir != nil {
		if _, err := raw(unix.SYS_CHDIR, uintptr(unsafe.Pointer(p.dir)), 0, 0, 0); err != 0 {
			die(p, err)
		}
	}
	if p.limit != nil { // not before the descriptors are in place: they may be above it
		raw(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(p.limit)), 0)
	}
	defaultSignals()
	p.report.step = stepExec
	execute(p)
}

// scoreFile is trampoline.ScoreFile.
var scoreFile = []byte(trampoline.ScoreFile + "\x00")

// setScore is that of the trampoline. A child as that of vfork has a score of its own,
// though it shares our memory (vfork_done in fs/proc/base.c).
//
//go:nosplit
//go:norace
//go:nocheckptr
func setScore(p *Plan) {
	here := unix.AT_FDCWD
	fd, err := raw(unix.SYS_OPENAT, uintptr(here), uintptr(unsafe.Pointer(unsafe.SliceData(scoreFile))), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != 0 {
		return
	}
	raw(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p.score))), uintptr(len(p.score)), 0)
	raw(unix.SYS_CLOSE, fd, 0, 0, 0)
}

// identify writes down the inode number of our pidfd, if somebody asks. If it cannot
// be had (no memory, a filter that is new), its variables are left out: a program that
// was not told its number does without.
//
//go:nosplit
//go:norace
//go:nocheckptr
func identify(p *Plan, pid uintptr) {
	if len(p.idAt) == 0 {
		return
	}
	fd, err := raw(unix.SYS_PIDFD_OPEN, pid, 0, 0, 0)
	if err != 0 {
		// A nil in the middle is the end. As a number, for it is no pointer to the
		// garbage collector, which finds the rest through Plan.idAt.
		first := len(p.env) - 1 - len(p.idAt)
		*(*uintptr)(unsafe.Pointer(&p.env[first])) = 0
		return
	}
	// At the far end of our stack, where the linker lets no function of ours come.
	st := (*unix.Stat_t)(unsafe.Pointer(&p.stack))
	raw(unix.SYS_FSTAT, fd, uintptr(unsafe.Pointer(st)), 0, 0) // has nothing to fail of
	raw(unix.SYS_CLOSE, fd, 0, 0, 0)
	for i := range p.idAt {
		decimal(p.idAt[i], st.Ino)
	}
}

// place moves the files to 0, 1, 2, … in this order. What is below its place would
// be overwritten before its turn comes, and is moved out of the way first.
//
//go:nosplit
//go:norace
//go:nocheckptr
func place(p *Plan) {
	for i := range p.fds {
		if fd := int(p.fds[i]); fd >= 0 && fd < i {
			up, err := raw(unix.SYS_FCNTL, uintptr(fd), unix.F_DUPFD_CLOEXEC, uintptr(len(p.fds)), 0)
			if err != 0 {
				die(p, err)
			}
			p.fds[i] = int32(up)
		}
	}
	for i := range p.fds {
		var err syscall.Errno
		if fd := uintptr(p.fds[i]); int(fd) == i {
			_, err = raw(unix.SYS_FCNTL, fd, unix.F_SETFD, 0, 0)
		} else {
			_, err = raw(unix.SYS_DUP3, fd, uintptr(i), 0, 0)
		}
		if err != 0 {
			die(p, err)
		}
	}
}

// become changes groups, group and user, in the order in which each is still allowed.
//
//go:nosplit
//go:norace
//go:nocheckptr
func become(p *Plan) {
	c := p.spec.Credential
	if c == nil {
		return
	}
	p.report.step = stepGroups
	groups := uintptr(unsafe.Pointer(unsafe.SliceData(c.Groups)))
	if _, err := raw(unix.SYS_SETGROUPS, uintptr(len(c.Groups)), groups, 0, 0); err != 0 && !p.sameGroups {
		die(p, err)
	}
	p.report.step = stepGID
	gid, uid := uintptr(c.GID), uintptr(c.UID)
	if _, err := raw(unix.SYS_SETRESGID, gid, gid, gid, 0); err != 0 {
		die(p, err)
	}
	p.report.step = stepUID
	if _, err := raw(unix.SYS_SETRESUID, uid, uid, uid, 0); err != 0 {
		die(p, err)
	}
}

// Called in clone_*.s, where static checks do not look.
var _ = child

// zeroes is a default action, and an empty set, of signals.
var zeroes [64]byte

// defaultSignals resets handlers, which must be gone before the mask is, and what
// was ignored (nohup), which exec would keep.
//
//go:nosplit
//go:norace
//go:nocheckptr
func defaultSignals() {
	for sig := uintptr(1); sig <= 8*sigSetSize; sig++ {
		// SIGKILL and SIGSTOP cannot be set and need not be.
		raw(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&zeroes)), 0, sigSetSize)
	}
	raw(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&zeroes)), 0, sigSetSize)
}

// execute becomes the program by the rules of execvp(3), as trampoline.execute has them.
//
//go:nosplit
//go:norace
//go:nocheckptr
func execute(p *Plan) {
	none := syscall.ENOENT
	argv, env := uintptr(unsafe.Pointer(&p.argv[0])), uintptr(unsafe.Pointer(&p.env[0]))
	for i := range p.programs {
		p.report.at = int32(i)
		file := uintptr(unsafe.Pointer(p.programs[i]))
		_, err := raw(unix.SYS_EXECVE, file, argv, env, 0)
		if err == syscall.ENOENT && exists(file) {
			p.report.there = true
			die(p, err)
		}
		switch {
		case !p.lookup:
			die(p, err)
		case err == syscall.EACCES:
			none = err // but a later directory may have one we can run
		case err != syscall.ENOENT && err != syscall.ENOTDIR && err != syscall.ENODEV && err != syscall.ESTALE && err != syscall.ETIMEDOUT:
			die(p, err)
		}
	}
	p.report.at = int32(len(p.programs))
	die(p, none)
}

//go:nosplit
//go:norace
func exists(file uintptr) bool {
	const here = ^uintptr(99) // AT_FDCWD, -100
	_, err := raw(unix.SYS_FACCESSAT, here, file, unix.F_OK, 0)
	return err == 0
}

// die says what failed and ends the child. It does not return.
//
//go:nosplit
//go:norace
func die(p *Plan, err syscall.Errno) {
	p.report.errno = uint32(err)
	for {
		raw(unix.SYS_EXIT_GROUP, 127, 0, 0, 0)
	}
}

// decimal writes n and a NUL byte to at.
//
//go:nosplit
//go:norace
//go:nocheckptr
func decimal(at *byte, n uint64) {
	size := 1
	for rest := n; rest >= 10; rest /= 10 {
		size++
	}
	*(*byte)(unsafe.Add(unsafe.Pointer(at), size)) = 0
	for i := size - 1; i >= 0; i-- {
		*(*byte)(unsafe.Add(unsafe.Pointer(at), i)) = byte('0' + n%10)
		n /= 10
	}
}
