package sys

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Mark says by what the processes of a run are known where it has no cgroup:
// they are in the session or process group of its main process, or descend from
// it, or carry Env in the environment they were started with. One that has got
// rid of all of these is not found.
type Mark struct {
	Main int    // not yet reaped, so that its number cannot be anybody else's
	Env  string // a whole NAME=value that only this run has; "" for none
}

// A stat is what /proc/PID/stat tells.
type stat struct {
	pid, parent, group, session int
	state                       byte
	kernel                      bool   // a kernel thread
	start                       uint64 // clock ticks since boot: with pid, an identity
}

const flagKernelThread = 0x00200000 // PF_KTHREAD, linux/sched.h

// readStat reads what is known of pid; false if there is no such process.
func readStat(pid int) (stat, bool) {
	var b [1024]byte
	n := readSmall("/proc/"+strconv.Itoa(pid)+"/stat", b[:])
	return parseStat(b[:n])
}

// parseStat reads a line of proc_pid_stat(5). The name, second, may contain
// anything, also blanks and parentheses.
func parseStat(line []byte) (s stat, ok bool) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 1 || end < open {
		return s, false
	}
	f := bytes.Fields(line[end+1:]) // f[0] is field 3
	if len(f) < 20 {
		return s, false
	}
	number := func(b []byte) int {
		n, err := strconv.Atoi(string(b))
		ok = ok && err == nil
		return n
	}
	ok = true
	s.pid = number(bytes.TrimSpace(line[:open]))
	s.state = f[0][0]
	s.parent, s.group, s.session = number(f[1]), number(f[2]), number(f[3])
	s.kernel = number(f[6])&flagKernelThread != 0
	start, err := strconv.ParseUint(string(f[19]), 10, 64)
	s.start = start
	return s, ok && err == nil
}

func (s *stat) dead() bool    { return s.state == 'Z' || s.state == 'X' || s.state == 'x' }
func (s *stat) stopped() bool { return s.state == 'T' || s.state == 't' }

// readSmall reads a small file into b, and nothing of one that cannot be read.
func readSmall(name string, b []byte) int {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, b)
	if err != nil {
		return 0
	}
	return n
}

// A snapshot is one look at all processes.
type snapshot map[int]*stat

func lookAround() (snapshot, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	snap := make(snapshot, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if s, ok := readStat(pid); ok && !s.kernel {
				snap[pid] = &s
			}
		}
	}
	return snap, nil
}

// members lists, for each mark, the living processes of its run but for Main.
// Neither we nor process 1 are ever among them.
func (snap snapshot) members(marks []Mark) [][]stat {
	self := os.Getpid()
	of := map[int]int{}       // process → index of its mark
	sessions := map[int]int{} // session or group → index of its mark
	for i, m := range marks {
		main, ok := snap[m.Main]
		if !ok {
			continue
		}
		of[m.Main] = i
		for _, id := range []int{main.session, main.group} {
			if us := snap[self]; us == nil || id != us.session && id != us.group {
				sessions[id] = i
			}
		}
	}
	found := make([][]stat, len(marks))
	for pid, s := range snap {
		if i, ok := snap.owner(pid, marks, of, sessions, self); ok && pid != marks[i].Main && !s.dead() {
			found[i] = append(found[i], *s)
		}
	}
	return found
}

const nobody = -1

// owner finds the mark a process belongs to, and remembers it for its children.
func (snap snapshot) owner(pid int, marks []Mark, of, sessions map[int]int, self int) (int, bool) {
	if i, ok := of[pid]; ok {
		return i, i != nobody
	}
	s, ok := snap[pid]
	if !ok || pid == self || pid == 1 {
		return nobody, false
	}
	of[pid] = nobody // a ring of parents cannot be, but a look at /proc is no moment in time
	i, ok := sessions[s.session]
	if !ok {
		i, ok = sessions[s.group]
	}
	if !ok {
		i, ok = snap.owner(s.parent, marks, of, sessions, self)
	}
	if !ok {
		i, ok = snap.marked(s, marks)
	}
	if !ok {
		return nobody, false
	}
	of[pid] = i
	return i, true
}

// marked looks for a mark in the environment the process was started with.
func (snap snapshot) marked(s *stat, marks []Mark) (int, bool) {
	var env []byte
	for i, m := range marks {
		if m.Env == "" {
			continue
		}
		if main, ok := snap[m.Main]; ok && s.start < main.start {
			continue // older than the run
		}
		if env == nil {
			env, _ = os.ReadFile("/proc/" + strconv.Itoa(s.pid) + "/environ")
			if len(env) == 0 {
				return nobody, false
			}
			env = append([]byte{0}, env...)
		}
		if bytes.Contains(env, []byte("\x00"+m.Env+"\x00")) {
			return i, true
		}
	}
	return nobody, false
}
