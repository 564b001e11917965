// Package direct starts a program without the trampoline: a child that shares our
// memory, as with vfork(2), prepares itself by raw system calls and becomes the
// program. It knows its own pid before that, and so LISTEN_PID is right.
//
// It does only what a [trampoline.Job] asks for, in the same order and with the
// same failures; one contract test holds the two ways together. It never waits
// for a child that has started and never reaps one.
//
// The one thing to know: Start blocks its thread until the child has come to exec
// or has died, and an exec on a dead mount may take for ever. That stops nobody
// else: no lock is held meanwhile, and the scheduler and the garbage collector
// take the thread for one in a system call. But it costs a thread, so callers run
// Start in a goroutine of its own and bound how many there are.
package direct

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys/trampoline"
)

// A Failure is the step of preparation that failed; stages as in package sys.
type Failure = trampoline.Failure

// A Spec says what to start and with what.
type Spec struct {
	trampoline.Job

	Files  []int // become 0, 1, 2, … of the child; nothing else is handed down
	Cgroup int   // descriptor of the cgroup to be born in; -1: ours
}

var (
	// ErrUnsupported: this architecture has no direct way.
	ErrUnsupported = errors.New("direct: not for this architecture")

	errNUL   = errors.New("direct: NUL byte in a string")
	errEmpty = errors.New("direct: no program")
	errCPU   = errors.New("direct: no such CPU")
	errUsed  = errors.New("direct: a plan is good for one start")
)

// digits is room for the largest 64-bit number in decimal and a NUL byte.
const digits = 21

// A Plan is a Spec in the form the child needs. Everything is in place before the
// child begins, for it can allocate nothing. A Plan lives on the heap, where
// nothing moves, and is good for one Start.
type Plan struct {
	spec *Spec
	used atomic.Bool

	// The child reads these. Strings end with a NUL byte, lists with nil.
	argv, env  []*byte
	programs   []*byte            // what to exec, tried in this order
	lookup     bool               // the programs come from PATH
	dir        *byte              // nil: as the parent
	fds        []int32            // Spec.Files; written to as well
	top        int32              // above all of them
	pidAt      []*byte            // where the child's pid goes
	idAt       []*byte            // where the inode of its pidfd goes: the last variables of env
	cpus       *trampoline.CPUSet // to run on; nil: as the parent
	sameGroups bool               // the groups asked for are those we have
	score      []byte             // for the OOM killer; none: as the parent
	limit      *limit             // of descriptors, from before Go raised it; nil: leave it

	report report

	call  call
	stack [4096]byte // the child's own; the linker allows its functions 800 bytes
}

// A report is what the child says of itself, in memory that we share. A variable
// of the parent's function would not do: it may live in a register.
type report struct {
	pid   int32 // the first thing it writes
	pidfd int32 // written by the kernel before the child runs
	step  step
	errno uint32
	at    int32 // index of the program tried; len(programs): none was left
	there bool  // ENOENT, but the file is there
}

// A step is how far the child has come.
type step uint32

const (
	stepNone step = iota // killed before its first instruction
	stepPlace
	stepClose
	stepCPU
	stepGroups
	stepGID
	stepUID
	stepDirectory
	stepExec
)

// Prepare makes a Plan. The error is a string with a NUL byte, no program, or a CPU
// that no machine has.
func Prepare(s *Spec) (*Plan, error) {
	if len(s.Argv) == 0 || s.Argv[0] == "" {
		return nil, errEmpty
	}
	p := &Plan{spec: s, report: report{pidfd: -1}}
	env, path := s.environment()
	p.score = []byte(s.Score)
	b := newBlock(s, env, path)
	p.argv = b.list(s.Argv)
	p.env = b.list(env)
	at := len(env)
	for _, name := range s.PidEnv {
		p.env[at], p.pidAt = b.variable(name, p.pidAt)
		at++
	}
	if pidfs() {
		for _, name := range s.PidfdEnv {
			p.env[at], p.idAt = b.variable(name, p.idAt)
			at++
		}
	}
	p.env = p.env[:at+1] // nil in the end
	p.programs, p.lookup = b.programs(s.Argv[0], path)
	if s.Dir != "" {
		p.dir = b.add(s.Dir)
	}
	if b.bad {
		return nil, errNUL
	}
	p.fds = make([]int32, len(s.Files))
	for i, fd := range s.Files {
		p.fds[i] = int32(fd)
		p.top = max(p.top, int32(fd)+1)
	}
	if c := s.Credential; c != nil {
		p.sameGroups = haveGroups(c.Groups)
	}
	if s.CPU != 0 {
		if p.cpus = trampoline.OnlyCPU(s.CPU); p.cpus == nil {
			return nil, errCPU
		}
	}
	p.limit = limitToRestore()
	return p, nil
}

// environment is Env without what the child sets itself, and the PATH in it.
func (s *Spec) environment() (env []string, path string) {
	env = make([]string, 0, len(s.Env))
	path = "/bin:/usr/bin" // as execvp(3) has it
	for _, kv := range s.Env {
		name, value, ok := strings.Cut(kv, "=")
		if ok && (slices.Contains(s.PidEnv, name) || slices.Contains(s.PidfdEnv, name)) {
			continue
		}
		env = append(env, kv)
		if ok && name == "PATH" {
			path = value // later ones win
		}
	}
	return env, path
}

// haveGroups tells whether the wanted supplementary groups are those we have: who
// may not set groups may still run programs as himself.
func haveGroups(want []uint32) bool {
	have, err := unix.Getgroups()
	if err != nil {
		return false
	}
	for _, g := range want {
		if !slices.Contains(have, int(g)) {
			return false
		}
	}
	for _, g := range have {
		if !slices.Contains(want, uint32(g)) {
			return false
		}
	}
	return true
}

// pidfs tells whether a pidfd's inode number means one process for the whole
// boot: from Linux 6.9 on, where pidfds are files of a file system of their own.
var pidfs = sync.OnceValue(func() bool {
	const magic = 0x50494446 // PID_FS_MAGIC; linux/magic.h
	fd, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Type == magic
})
