// Package trampoline is sockd in the role of a child that prepares itself and
// then becomes a service: the program that embeds the supervisor is started once
// more, and this package takes over before main, os or anything else has begun.
//
// It opens no descriptor that outlives it, starts no goroutine and never returns.
// The one thing to know: it imports next to nothing, so that it is initialised
// right after syscall; each import added here is paid for by every start.
//
// That the service's own exec happens here, and not in the supervisor's child
// between fork and exec, has a second reason. There the parent's thread holds the
// scheduler, and an exec that hangs on a dead mount would stop the supervisor at
// its next garbage collection. Here it stops nobody else.
package trampoline

import (
	"syscall"
	"unsafe"
)

const (
	// Argv0 is the name the trampoline runs under.
	Argv0 = "sockd-trampoline"
	// Program is what to start: this very executable, also after its file has been replaced.
	Program = "/proc/self/exe"

	marker = "SOCKD_TRAMPOLINE"
)

// Env returns the whole environment to start the trampoline with. Nothing else
// may be in it: variables such as GODEBUG would steer the runtime of a process
// that may be privileged.
//
// The child's descriptors are to be: 0, 1 and 2, then files for the program, then
// the sealed job, then the writing end of the status pipe.
func Env(files int) []string { return []string{marker + "=" + itoa(files)} }

// Seals are what the file with the job must have. No file can have them by
// accident, and nobody can change the job any more.
const Seals = 0x1 | 0x2 | 0x4 | 0x8 // F_SEAL_SEAL, SHRINK, GROW, WRITE; linux/fcntl.h

const (
	fGetSeals         = 1024 + 10 // F_GET_SEALS
	sysCloseRange     = 436       // the same on every architecture Go runs on
	closeRangeCloexec = 4         // CLOSE_RANGE_CLOEXEC, Linux 5.11
)

// Any program that links this package can be the trampoline, with no cooperation.
// It becomes one only if started as one: the variable, the name and the sealed job
// have to be there, all three.
func init() {
	value, ok := syscall.Getenv(marker)
	if !ok {
		return
	}
	files, ok := atoi(value)
	if !ok {
		return
	}
	job, status := 3+files, 4+files
	if seals, err := fcntl(job, fGetSeals, 0); err != 0 || seals&Seals != Seals || !namedSo() {
		return
	}
	run(job, status)
}

// namedSo tells whether argv[0] is Argv0. Package os would know, but has not begun.
func namedSo() bool {
	fd, err := syscall.Open("/proc/self/cmdline", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	var b [len(Argv0) + 1]byte
	n, _ := syscall.Read(fd, b[:])
	syscall.Close(fd)
	return n > len(Argv0) && string(b[:]) == Argv0+"\x00"
}

// run prepares and execs. Credentials and the signal mask belong to a thread. Go
// runs init functions on the locked main thread, raw calls change that thread
// only, and exec keeps exactly the thread that calls it; so neither needs all
// threads, and a thread the runtime makes meanwhile cannot spoil them.
func run(jobFD, status int) {
	if err := closeOnExec(jobFD); err != 0 {
		fail(status, "descriptors", "", err)
	}
	b, err := readAll(jobFD)
	if err != 0 {
		fail(status, "job", "", err)
	}
	j, bad := Decode(b)
	if bad != nil {
		fail(status, "job", bad.Error(), syscall.EINVAL)
	}
	if j.Umask >= 0 {
		syscall.Umask(j.Umask)
	}
	if j.Score != "" {
		setScore(j.Score)
	}
	if j.CPU > 0 {
		if err := runOn(j.CPU); err != 0 {
			fail(status, "cpu", itoa(j.CPU-1), err)
		}
	}
	if c := j.Credential; c != nil {
		if what, err := become(c); err != 0 {
			fail(status, "user", what, err)
		}
	}
	if j.Dir != "" {
		if err := syscall.Chdir(j.Dir); err != nil {
			fail(status, "directory", j.Dir, errno(err))
		}
	}
	env := withOwn(j.Env, j.PidEnv, itoa(syscall.Getpid()))
	if len(j.PidfdEnv) > 0 {
		env = withOwn(env, j.PidfdEnv, pidfdID())
	}
	defaultSignals()
	write(status, []byte{aboutToExec})
	what, err := execute(j.Argv, env)
	fail(status, "exec", what, err)
}

// ScoreFile is where a process says what the OOM killer is to take it for.
const ScoreFile = "/proc/self/oom_score_adj"

// setScore says so. A program that cannot have its score runs with ours.
func setScore(score string) {
	if fd, err := syscall.Open(ScoreFile, syscall.O_WRONLY|syscall.O_CLOEXEC, 0); err == nil {
		syscall.Write(fd, []byte(score))
		syscall.Close(fd)
	}
}

// closeOnExec marks every descriptor from first on. What is before it is the
// program's; what is after may be ours, or may have leaked from a parent that did
// not take care.
func closeOnExec(first int) syscall.Errno {
	_, _, err := syscall.RawSyscall(sysCloseRange, uintptr(first), uintptr(^uint32(0)), closeRangeCloexec)
	if err != syscall.ENOSYS && err != syscall.EINVAL && err != syscall.EPERM {
		return err
	}
	// Before Linux 5.11, or under a filter that does not know the call.
	if markListed(first) {
		return 0
	}
	return markAll(first)
}

// markListed marks those that /proc lists; false if it cannot. There are few, where the
// limit may allow a thousand million.
func markListed(first int) bool {
	dir, err := syscall.Open("/proc/self/fd", syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer syscall.Close(dir)
	var b [4096]byte
	for {
		n, err := syscall.ReadDirent(dir, b[:])
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return false
		case n == 0:
			return true
		}
		_, _, names := syscall.ParseDirent(b[:n], -1, nil)
		for _, name := range names {
			switch fd, ok := atoi(name); {
			case !ok:
				return false // a number that is too long for it
			case fd >= first:
				syscall.CloseOnExec(fd)
			}
		}
	}
}

// markAll marks all that there may be.
func markAll(first int) syscall.Errno {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return errno(err)
	}
	for fd := first; uint64(fd) < uint64(limit.Cur); fd++ {
		syscall.CloseOnExec(fd) // not open is no error here
	}
	return 0
}

// readAll reads a file of known size by pread: its offset is shared with the parent.
func readAll(fd int) ([]byte, syscall.Errno) {
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return nil, errno(err)
	}
	if st.Size > maxBytes {
		return nil, syscall.EFBIG
	}
	b := make([]byte, st.Size)
	for at := 0; at < len(b); {
		n, err := syscall.Pread(fd, b[at:], int64(at))
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return nil, errno(err)
		case n == 0:
			return b[:at], 0
		default:
			at += n
		}
	}
	return b, 0
}

// withOwn is env with each of the names set to value, and set once; not at all if
// value is "".
func withOwn(env, names []string, value string) []string {
	if len(names) == 0 {
		return env
	}
	all := make([]string, 0, len(env)+len(names))
	for _, kv := range env {
		if !setsAny(kv, names) {
			all = append(all, kv)
		}
	}
	if value == "" {
		return all
	}
	for _, name := range names {
		all = append(all, name+"="+value)
	}
	return all
}

func setsAny(kv string, names []string) bool {
	for _, name := range names {
		if len(kv) > len(name) && kv[len(name)] == '=' && kv[:len(name)] == name {
			return true
		}
	}
	return false
}

// defaultSignals undoes what was inherited: exec turns handlers back to the
// default by itself, but keeps what is ignored (nohup) and the mask.
func defaultSignals() {
	const size = 8 // of the kernel's signal set in bytes
	var action [64]byte
	for sig := 1; sig <= 8*size; sig++ {
		// SIGKILL and SIGSTOP cannot be set and need not be.
		syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, size, 0, 0)
	}
	var empty [size]byte
	const setMask = 2 // SIG_SETMASK
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, setMask, uintptr(unsafe.Pointer(&empty)), 0, size, 0, 0)
}

func fcntl(fd, cmd, arg int) (int, syscall.Errno) {
	r, _, err := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), uintptr(cmd), uintptr(arg))
	return int(r), err
}

func errno(err error) syscall.Errno {
	if e, ok := err.(syscall.Errno); ok {
		return e
	}
	return syscall.EINVAL // a string with a NUL byte, which Decode refuses
}

func itoa(n int) string { return utoa(uint64(n)) }

func utoa(n uint64) string {
	var b [20]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return string(b[i:])
		}
	}
}

// atoi reads a number of descriptors: at most seven digits.
func atoi(s string) (n int, ok bool) {
	if len(s) == 0 || len(s) > 7 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int(s[i]-'0')
	}
	return n, true
}
