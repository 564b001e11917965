package trampoline

import "errors"

// A Job is what the child does before the program runs. Its descriptors are not
// part of it: they are in place when the trampoline begins.
type Job struct {
	Argv     []string // Argv[0] without a slash is looked up in the PATH of Env
	Env      []string // complete but for PidEnv and PidfdEnv
	PidEnv   []string // variables set to the child's own pid
	PidfdEnv []string // variables set to the inode of its pidfd; left out where that means nothing (before Linux 6.9)
	Dir      string   // "": as the parent
	Umask    int      // -1: as the parent
	Score    string   // for the OOM killer (proc_pid_oom_score_adj(5)); "": as the parent

	Credential *Credential // nil: as the parent
	CPU        int         // the one to run on, counted from 1; 0: as the parent
}

// A Credential is the identity the program runs under.
type Credential struct {
	UID, GID uint32
	Groups   []uint32 // supplementary
}

const (
	magic    = "sockd job 4\n"
	maxBytes = 64 << 20 // of an encoded job: many times what the kernel takes as arguments

	hasCredential = 1
)

var (
	errShort = errors.New("job: shorter than it says")
	errLong  = errors.New("job: longer than it says")
	errMagic = errors.New("job: not a job")
	errNUL   = errors.New("job: NUL byte in a string")
	errEmpty = errors.New("job: no program")
	errCPU   = errors.New("job: no such CPU")
	errFlags = errors.New("job: unknown flags")
)

// Encode writes the job down. A string with a NUL byte cannot reach a program and
// is an error, and so is a job without a program.
func (j *Job) Encode() ([]byte, error) {
	if len(j.Argv) == 0 || j.Argv[0] == "" {
		return nil, errEmpty
	}
	if j.CPU < 0 || j.CPU > MaxCPU {
		return nil, errCPU
	}
	b := make([]byte, 0, 4096)
	b = append(b, magic...)
	b = appendU32(b, 0) // length of all, filled in below
	b = appendU32(b, uint32(int32(j.Umask)))
	b = appendU32(b, uint32(j.CPU))
	if c := j.Credential; c != nil {
		b = appendU32(b, hasCredential)
		b = appendU32(b, c.UID)
		b = appendU32(b, c.GID)
		b = appendU32(b, uint32(len(c.Groups)))
		for _, g := range c.Groups {
			b = appendU32(b, g)
		}
	} else {
		b = appendU32(b, 0)
	}
	for _, list := range [][]string{{j.Dir, j.Score}, j.Argv, j.Env, j.PidEnv, j.PidfdEnv} {
		b = appendU32(b, uint32(len(list)))
		for _, s := range list {
			if hasNUL(s) {
				return nil, errNUL
			}
			b = appendU32(b, uint32(len(s)))
			b = append(b, s...)
		}
	}
	if len(b) > maxBytes {
		return nil, errLong
	}
	appendU32(b[:len(magic)], uint32(len(b)))
	return b, nil
}

// Decode reads a job. It allocates no more than a small multiple of its input,
// whatever the input says.
func Decode(b []byte) (*Job, error) {
	r := reader{rest: b}
	if string(r.take(len(magic))) != magic {
		return nil, errMagic
	}
	switch size := int64(r.u32()); {
	case r.err != nil || size > int64(len(b)):
		return nil, errShort
	case size < int64(len(b)):
		return nil, errLong
	}
	j := &Job{Umask: int(int32(r.u32())), CPU: int(int32(r.u32()))}
	switch r.u32() {
	case 0:
	case hasCredential:
		c := &Credential{UID: r.u32(), GID: r.u32()}
		if n := r.count(); n > 0 {
			c.Groups = make([]uint32, n)
			for i := range c.Groups {
				c.Groups[i] = r.u32()
			}
		}
		j.Credential = c
	default:
		return nil, errFlags
	}
	single := r.strings()
	j.Argv, j.Env, j.PidEnv, j.PidfdEnv = r.strings(), r.strings(), r.strings(), r.strings()
	switch {
	case r.err != nil:
		return nil, r.err
	case len(r.rest) != 0:
		return nil, errLong
	case len(single) != 2:
		return nil, errShort
	case len(j.Argv) == 0 || j.Argv[0] == "":
		return nil, errEmpty
	case j.CPU < 0 || j.CPU > MaxCPU:
		return nil, errCPU
	}
	j.Dir, j.Score = single[0], single[1]
	return j, nil
}

// A reader takes values off the front; after the first error it yields zeros.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.rest) {
		r.err = errShort
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) u32() uint32 {
	b := r.take(4)
	if b == nil {
		return 0
	}
	return u32(b)
}

// count reads how many things follow. Each takes four bytes at least, so that a
// wild number is refused before anything is allocated for it.
func (r *reader) count() int {
	n := int64(r.u32())
	if r.err == nil && n > int64(len(r.rest)/4) {
		r.err = errShort
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

func (r *reader) strings() []string {
	n := r.count()
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = string(r.take(int(r.u32())))
		if hasNUL(list[i]) {
			r.err = errNUL
		}
	}
	return list
}

// encoding/binary and strings would do, but the packages they bring along would
// all be initialised before the trampoline gets its turn.

func appendU32(b []byte, v uint32) []byte {
	return append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
}

func u32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func hasNUL(s string) bool {
	for i := range len(s) {
		if s[i] == 0 {
			return true
		}
	}
	return false
}
