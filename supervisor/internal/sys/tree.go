package sys

import (
	"bytes"
	"cmp"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A Mark says by what the processes of a run are known where it has no cgroup:
// they are in the session or process group of its main process, or descend from
// it, or carry Env in the environment they were started with. One that has got
// rid of all of these is not found.
type Mark struct {
	Main int    // not yet reaped, so that its number cannot be anybody else's
	Env  string // a whole NAME=value that only this run has; "" for none

	Foreign bool // it does not descend from us: a keeper before us started it
}

// A stat is what /proc/PID/stat tells.
type stat struct {
	pid, parent, group, session int
	state                       byte
	threads                     int    // also those of a process whose first thread has ended
	kernel                      bool   // a kernel thread
	exiting                     bool   // it has given up its memory, or is about to
	start                       uint64 // clock ticks since boot: with pid, an identity
	env, envEnd                 uint64 // where the environment begins and ends; 0 also if we may not know
}

const ( // linux/sched.h
	flagExiting      = 0x00000004 // PF_EXITING
	flagKernelThread = 0x00200000 // PF_KTHREAD
)

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
	s.threads = number(f[17])
	flags := number(f[6])
	s.kernel, s.exiting = flags&flagKernelThread != 0, flags&flagExiting != 0
	start, err := strconv.ParseUint(string(f[19]), 10, 64)
	s.start = start
	if len(f) > 48 { // since Linux 3.5
		s.env, _ = strconv.ParseUint(string(f[47]), 10, 64)
		s.envEnd, _ = strconv.ParseUint(string(f[48]), 10, 64)
	}
	return s, ok && err == nil
}

// dead: a process whose first thread has ended looks dead, but is not while it has
// others.
func (s *stat) dead() bool {
	return s.threads <= 1 && s.state == 'Z' || s.state == 'X' || s.state == 'x'
}

// stopped: by a signal. Whoever is held by a debugger ('t') has somebody who looks after it.
func (s *stat) stopped() bool { return s.state == 'T' }

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

// lookAround looks at every process.
func lookAround() (snapshot, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return lookAt(func() ([]string, error) {
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		return dir.Readdirnames(-1)
	})
}

// lookAt looks at the processes that are listed.
func lookAt(list func() (names []string, err error)) (snapshot, error) {
	snap := snapshot{}
	return snap, untilNobodyIsNew(func(int) (fresh bool, err error) {
		names, err := list()
		for _, name := range names {
			pid, err := strconv.Atoi(name)
			if _, seen := snap[pid]; err != nil || seen {
				continue
			}
			fresh = true
			s, _ := readStat(pid) // if it has gone, it belongs to nobody, but has been seen
			snap[pid] = &s
		}
		return fresh, err
	})
}

// mostLists is how often processes are listed in one look. Where others fork without end,
// there are new ones in each list: they are not to hold up everybody who looks.
const mostLists = 64

// untilNobodyIsNew has processes listed again and again until there is no new one: a
// process may fork after it was listed and die before it was looked at, and its child
// must not be missed.
func untilNobodyIsNew(list func(round int) (fresh bool, err error)) error {
	for round := range mostLists {
		if fresh, err := list(round); err != nil || !fresh {
			return err
		}
	}
	return nil
}

// members lists, for each mark, the living processes of its run but for Main, the
// oldest first.
// Neither we nor process 1 are ever among them.
func (snap snapshot) members(marks []Mark) [][]stat {
	self := os.Getpid()
	of := map[int]int{}       // process → index of its mark
	sessions := map[int]int{} // session or group → index of its mark
	for i, m := range marks {
		main, ok := snap[m.Main]
		if !ok || main.pid == 0 {
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
	for _, list := range found { // parents first: they are not to see their children die
		slices.SortFunc(list, func(a, b stat) int {
			return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.pid, b.pid))
		})
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
	if !ok || s.pid != pid || s.kernel || pid == self || pid == 1 {
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
			env = append([]byte{0}, environment(s)...)
		}
		if bytes.Contains(env, []byte("\x00"+m.Env+"\x00")) {
			return i, true
		}
	}
	return nobody, false
}

// execPatience is how long a process may be half-way through exec. It takes well
// under a millisecond, unless the machine is busy.
const execPatience = 2 * time.Second

// environment reads what the process was started with. Half-way through exec there
// is none: the new memory is there, and the strings are not yet in it. That is another
// thing than an empty one, and over before we can have asked whether it was so.
func environment(s *stat) []byte {
	name := "/proc/" + strconv.Itoa(s.pid) + "/environ"
	tick := time.NewTicker(time.Millisecond) // the kernel tells nobody when an exec is done
	defer tick.Stop()
	for end := time.Now().Add(execPatience); time.Now().Before(end); <-tick.C {
		env, err := os.ReadFile(name)
		if err != nil || len(env) > 0 {
			return env
		}
		now, ok := readStat(s.pid)
		if !ok || now.start != s.start || now.dead() || now.exiting { // it will not get any
			return nil
		}
		if now.env != 0 && now.env == now.envEnd {
			return nil
		}
	}
	return nil
}
