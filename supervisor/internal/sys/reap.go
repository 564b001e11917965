package sys

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Status is how a process ended: by exit with Code, or, if Signal is not 0, killed by it.
type Status struct {
	Code   int
	Signal int
	Core   bool // it left a core
}

// ErrStatusUnknown means that a process has ended and nobody could tell us how:
// it was not our child, and the kernel keeps no exit status for others (before Linux 6.15).
var ErrStatusUnknown = errors.New("exit status unknown: not our child")

// ErrMoved ends a Wait that somebody has called off.
var ErrMoved = errors.New("wait called off")

// A Process is one process and never another that got its number: it is waited
// for and signalled by pidfd. Where the kernel has none (before Linux 5.4) the
// number is safe too, for a child of ours keeps it until Reap.
type Process struct {
	Pid   int
	pidfd *os.File // in Go's poller, so that a wait costs no thread; nil without pidfd
	moved atomic.Bool

	mu     sync.Mutex // without pidfd: between a signal and the reaping
	reaped bool
}

// pidfdWorks tells whether a process can be waited for and signalled by pidfd: not
// before Linux 5.4, and not under every container filter. A variable for tests.
var pidfdWorks = sync.OnceValue(func() bool {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED|unix.WNOHANG, nil) == unix.ECHILD &&
		unix.PidfdSendSignal(fd, 0, nil, 0) == nil
})

// newProcess makes a Process; pidfd is -1 where there is none.
func newProcess(pid, pidfd int) *Process {
	p := &Process{Pid: pid}
	switch {
	case pidfd < 0:
	case !pidfdWorks():
		unix.Close(pidfd)
	default:
		pidfd = High(pidfd)
		unix.SetNonblock(pidfd, true)
		p.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	}
	return p
}

// Open makes a Process of any process. The caller has to make sure afterwards
// that it is the one he means: the number may have passed on before the call.
func Open(pid int) (*Process, error) {
	if !pidfdWorks() {
		if err := unix.Kill(pid, 0); err != nil && err != unix.EPERM {
			return nil, fmt.Errorf("process %d: %w", pid, err)
		}
		return newProcess(pid, -1), nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	return newProcess(pid, fd), nil
}

// Pinned tells whether the process can be waited for and signalled by pidfd.
func (p *Process) Pinned() bool { return p.pidfd != nil }

// WaitDead returns nil when the process is dead, be it reaped or not; ErrMoved
// after CallOff.
func (p *Process) WaitDead() error {
	if p.pidfd == nil {
		return p.waitDeadByNumber()
	}
	err := p.read(func(fd int) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		return err != unix.EINTR && (err != nil || n > 0)
	})
	if errors.Is(err, os.ErrDeadlineExceeded) && p.moved.Swap(false) {
		p.pidfd.SetReadDeadline(time.Time{})
		return ErrMoved
	}
	return err
}

// CallOff makes one WaitDead that is under way, or else the next, return ErrMoved.
// It does nothing without pidfd.
func (p *Process) CallOff() {
	if p.pidfd != nil {
		p.moved.Store(true)
		p.pidfd.SetReadDeadline(past)
	}
}

// waitDeadByNumber is WaitDead without pidfd.
func (p *Process) waitDeadByNumber() error {
	_, err := waitid(unix.P_PID, p.Pid, unix.WEXITED|unix.WNOWAIT)
	if !errors.Is(err, unix.ECHILD) {
		return err
	}
	tick := time.NewTicker(10 * time.Millisecond) // nothing tells of the death of somebody else's child
	defer tick.Stop()
	for p.Alive() {
		<-tick.C
	}
	return nil
}

// Wait returns how the process ended, when it has. It does not reap: the status
// can be read again and the number stays taken. For a process that is not our
// child it may return ErrStatusUnknown.
func (p *Process) Wait() (Status, error) {
	if p.pidfd == nil {
		st, err := waitid(unix.P_PID, p.Pid, unix.WEXITED|unix.WNOWAIT)
		if errors.Is(err, unix.ECHILD) {
			p.waitDeadByNumber()
			err = ErrStatusUnknown
		}
		return st, err
	}
	var st Status
	var result error
	err := p.read(func(fd int) bool {
		st, result = waitid(unix.P_PIDFD, fd, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG)
		if errors.Is(result, unix.ECHILD) {
			st, result = p.waitForeign(fd)
		}
		return !errors.Is(result, unix.EAGAIN)
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return Status{}, ErrStatusUnknown // nobody has reaped it
	}
	if err != nil {
		return Status{}, err
	}
	return st, result
}

// read calls f with the pidfd, at once and whenever something has happened to the
// process, until f is true. It takes no thread to wait.
func (p *Process) read(f func(fd int) bool) error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool { return f(int(fd)) })
}

// waitid asks for the status of a child; EAGAIN if it has not ended.
func waitid(kind, id, options int) (Status, error) {
	_, st, err := waitidPid(kind, id, options)
	return st, err
}

// waitidPid is waitid that also says which child it is.
func waitidPid(kind, id, options int) (pid int, st Status, err error) {
	var info unix.Siginfo
	for {
		err := unix.Waitid(kind, id, &info, options, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, st, err
		}
		break
	}
	if info.Signo == 0 {
		return 0, st, unix.EAGAIN // WNOHANG, and nothing to tell
	}
	// The kernel's siginfo_t: three ints, then a union aligned as a pointer is, which
	// for SIGCHLD begins with pid, uid and status (sigaction(2)).
	const union = (12 + unsafe.Sizeof(uintptr(0)) - 1) &^ (unsafe.Sizeof(uintptr(0)) - 1)
	child := (*struct{ pid, uid, status int32 })(unsafe.Add(unsafe.Pointer(&info), union))
	value := int(child.status)
	switch info.Code {
	case cldExited:
		st.Code = value
	case cldDumped:
		st.Signal, st.Core = value, true
	default:
		st.Signal = value
	}
	return int(child.pid), st, nil
}

const (
	cldExited = 1 // CLD_EXITED
	cldDumped = 3 // CLD_DUMPED
)

// patience is how long the parent of a dead process that is not our child may
// take to reap it before we do without its status.
const patience = time.Second

// waitForeign is waitid for a process that is not our child: EAGAIN while it
// lives, or while its parent has not reaped it yet; only then the kernel hands its
// status to others.
func (p *Process) waitForeign(fd int) (Status, error) {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 0); err != nil || n == 0 {
		return Status{}, unix.EAGAIN
	}
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	switch err := unix.IoctlPidfdInfo(fd, &info); {
	case err == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0:
		ws := unix.WaitStatus(info.Exit_code)
		if ws.Signaled() {
			return Status{Signal: int(ws.Signal()), Core: ws.CoreDump()}, nil
		}
		return Status{Code: ws.ExitStatus()}, nil
	case poll[0].Revents&unix.POLLHUP == 0 && err == nil:
		if st, ok := p.zombieStatus(fd); ok {
			return st, nil
		}
		// A zombie. The reaping wakes us (POLLHUP, Linux 6.9).
		p.pidfd.SetReadDeadline(time.Now().Add(patience))
		return Status{}, unix.EAGAIN
	}
	return Status{}, ErrStatusUnknown
}

// Reap takes a dead child off the process table, and closes the handle. For a
// process that is not our child it only closes.
func (p *Process) Reap() {
	p.reap()
	p.Close()
}

// reap is Reap that leaves the handle open.
func (p *Process) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return
	}
	p.reaped = true
	if p.pidfd == nil {
		waitid(unix.P_PID, p.Pid, unix.WEXITED|unix.WNOHANG)
		return
	}
	p.control(func(fd int) error {
		_, err := waitid(unix.P_PIDFD, fd, unix.WEXITED|unix.WNOHANG)
		return err
	})
}

// Close gives the handle up without waiting for the process.
func (p *Process) Close() {
	if p.pidfd != nil {
		p.pidfd.Close()
	}
}

// Signal sends sig. A process that has ended is no error.
func (p *Process) Signal(sig unix.Signal) error {
	var err error
	if p.pidfd == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.reaped {
			return nil
		}
		err = unix.Kill(p.Pid, sig)
	} else {
		err = p.control(func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, 0) })
	}
	if errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// control runs f with the descriptor, which cannot be closed meanwhile.
func (p *Process) control(f func(fd int) error) error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if raw.Control(func(fd uintptr) { result = f(int(fd)) }) != nil {
		return os.ErrClosed // the one reason there is
	}
	return result
}
