package sys

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys/trampoline"
)

// A Spec says what to start and with what.
type Spec struct {
	trampoline.Job

	Files  []int // become 3, 4, … of the child, in this order
	Output int   // becomes 1 and 2; -1: /dev/null
	Leaf   *Leaf // the cgroup to be born in; nil: ours
}

// A Failure is the step of preparation that failed: its Error reads like
// "exec: ./web: no such file or directory". Stages: fork, job, descriptors, cpu, user,
// directory, exec, and killed for a child that was ended before it came to exec.
type Failure = trampoline.Failure

// A Starting is a child between fork and exec.
type Starting struct {
	*Process
	status *os.File    // reading end of the trampoline's status pipe
	fates  <-chan fate // in its place where there is no trampoline
}

// Start forks a child that will become the program, directly where that works and
// else through the trampoline; nobody can tell which. It returns as soon as there
// is a child, in about a millisecond; Execed tells how it went on. The error is a
// *Failure of stage fork, and means that there is no child.
func Start(s *Spec) (*Starting, error) {
	child, ok, err := startDirect(s)
	if !ok {
		child, err = start(s)
	}
	if err != nil {
		var errno syscall.Errno
		if !errors.As(err, &errno) {
			errno = syscall.EINVAL
		}
		return nil, &Failure{Stage: "fork", Text: err.Error(), Errno: errno}
	}
	return child, nil
}

var null = opened{name: "/dev/null"}

// devNull is the null device. Whoever could not have it, for want of descriptors say, may
// have it the next time.
func devNull() (int, error) { return null.get() }

// An opened is a file that is opened when it is first wanted, and stays.
type opened struct {
	name string
	mu   sync.Mutex
	file int // its descriptor and 1
}

func (o *opened) get() (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file == 0 {
		fd, err := unix.Open(o.name, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		o.file = fd + 1
	}
	return o.file - 1, nil
}

func start(s *Spec) (*Starting, error) {
	job, err := sealedJob(&s.Job)
	if err != nil {
		return nil, err
	}
	defer unix.Close(job)
	null, err := devNull()
	if err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	output := s.Output
	if output < 0 {
		output = null
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	defer unix.Close(pipe[1])
	unix.SetNonblock(pipe[0], true) // this end is nobody else's, and Go's poller may have it
	status := os.NewFile(uintptr(pipe[0]), "status pipe")

	files := make([]uintptr, 0, len(s.Files)+5)
	files = append(files, uintptr(null), uintptr(output), uintptr(output))
	for _, fd := range s.Files {
		files = append(files, uintptr(fd))
	}
	files = append(files, uintptr(job), uintptr(pipe[1]))

	pidfd := -1
	attr := syscall.ProcAttr{
		Env:   trampoline.Env(len(s.Files)),
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	}
	if s.Leaf != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, s.Leaf.fd
	}
	// ForkExec and not package os: it takes plain numbers, so that O_NONBLOCK of what
	// is handed over stays as it is, and it waits for nobody behind our back.
	pid, err := syscall.ForkExec(trampoline.Program, []string{trampoline.Argv0}, &attr)
	if err != nil {
		status.Close()
		return nil, err
	}
	return &Starting{Process: newProcess(pid, pidfd), status: status}, nil
}

// sealedJob returns a file with the encoded job that nobody can change any more.
func sealedJob(j *trampoline.Job) (fd int, err error) {
	b, err := j.Encode()
	if err != nil {
		return -1, err
	}
	// Never to be executed: the only kind of memfd under vm.memfd_noexec=2 (Linux 6.3).
	fd, err = unix.MemfdCreate("sockd-job", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate("sockd-job", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, fmt.Errorf("memfd: %w", err)
	}
	for at := 0; at < len(b) && err == nil; {
		var n int
		n, err = unix.Write(fd, b[at:])
		at += max(n, 0)
		if err == unix.EINTR {
			err = nil
		}
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, trampoline.Seals)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("memfd: %w", err)
	}
	return fd, nil
}

// Execed waits until the program runs, or tells the step that failed. After a
// failure the child is dead or about to die, and is still to be waited for.
func (s *Starting) Execed() error {
	if s.fates != nil {
		return s.fate()
	}
	defer s.status.Close()
	b, err := io.ReadAll(io.LimitReader(s.status, trampoline.MaxReport))
	if err != nil {
		return &Failure{Stage: "fork", Detail: "status pipe", Errno: syscall.EIO}
	}
	reached, failure := trampoline.ParseReport(b)
	switch {
	case failure != nil:
		return failure
	case !reached:
		return s.endedEarly()
	}
	return nil
}

// endedEarly says how a child ended that did not come as far as exec.
func (s *Starting) endedEarly() error {
	f := &Failure{Stage: "killed", Detail: "before exec", Errno: syscall.ECANCELED}
	switch st, err := s.Wait(); {
	case err != nil:
	case st.Signal != 0:
		f.Text = "killed by " + SignalName(unix.Signal(st.Signal))
	default: // a crash of the trampoline itself, which Go has explained on the output
		f.Text = fmt.Sprintf("exit status %d", st.Code)
	}
	return f
}

// A Credential is the identity a program runs under.
type Credential = trampoline.Credential
