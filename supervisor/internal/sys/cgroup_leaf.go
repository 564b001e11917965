package sys

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Leaf is the cgroup of one run. It is used once: after one cgroup.kill every
// later child cloned into it dies before exec (kernel change of Linux 6.14, also
// backported).
type Leaf struct {
	dir  string
	path string
	fd   int // for CLONE_INTO_CGROUP; -1 after Born
}

// NewLeaf makes a fresh leaf.
func (c *Cgroup) NewLeaf() (*Leaf, error) {
	name := "run-" + strconv.FormatUint(c.next.Add(1), 10)
	l := &Leaf{dir: c.dir + "/" + name, path: c.path + "/" + name, fd: -1}
	err := unix.Mkdir(l.dir, 0o755)
	if err == unix.ENOENT {
		// A sockd in another pid namespace, which does not see us, has swept our folder
		// away while it was empty.
		unix.Mkdir(c.dir, 0o755)
		err = unix.Mkdir(l.dir, 0o755)
	}
	if err != nil {
		return nil, fmt.Errorf("mkdir %s: %w", l.dir, err)
	}
	fd, err := unix.Open(l.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Rmdir(l.dir)
		return nil, fmt.Errorf("open %s: %w", l.dir, err)
	}
	l.fd = fd
	return l, nil
}

// Born gives up the descriptor that only the birth needs.
func (l *Leaf) Born() {
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
}

// Remove removes the leaf, which must be empty, and what the run made below it.
func (l *Leaf) Remove() error {
	l.Born()
	return removeTree(l.dir)
}

// Procs lists the living processes in the leaf and below it.
func (l *Leaf) Procs() ([]int, error) { return procsBelow(l.dir) }

func procsBelow(dir string) ([]int, error) {
	b, err := os.ReadFile(dir + "/cgroup.procs")
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 { // 0: of another pid namespace
			pids = append(pids, pid)
		}
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			more, err := procsBelow(filepath.Join(dir, e.Name()))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
			pids = append(pids, more...)
		}
	}
	return pids, err
}

// Has tells whether pid is in the leaf or below it.
func (l *Leaf) Has(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return false
	}
	path, ok := v2Path(string(b))
	rest, below := strings.CutPrefix(path, l.path)
	return ok && below && (rest == "" || rest[0] == '/')
}

// killFile is where one write kills a cgroup. A variable for tests.
var killFile = "cgroup.kill"

// Kill sends SIGKILL to everything in the leaf and below, also to what is frozen,
// stopped or just being forked. It does not wait.
func (l *Leaf) Kill() error {
	err := writeFile(l.dir+"/"+killFile, "1")
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return l.killEach() // before Linux 5.14
}

// killEach kills one after the other until there is nobody new: who is about to die
// forks no more, and nothing would tell of what was forked before that. Frozen first
// (Linux 5.2), they do not fork faster than they are found; they die all the same.
func (l *Leaf) killEach() error {
	writeFile(l.dir+"/cgroup.freeze", "1")
	seen := map[int]bool{}
	for fresh := true; fresh; {
		fresh = false
		pids, err := l.Procs()
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if seen[pid] {
				continue
			}
			seen[pid], fresh = true, true
			if p, err := Open(pid); err == nil {
				if l.Has(pid) {
					p.Signal(unix.SIGKILL)
				}
				p.Close()
			}
		}
	}
	return nil
}

// Empty tells whether no living process is in the leaf or below it.
func (l *Leaf) Empty() (bool, error) {
	fd, err := unix.Open(l.dir+"/cgroup.events", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	return emptyAt(fd)
}

func emptyAt(fd int) (bool, error) {
	var b [256]byte
	n, err := unix.Pread(fd, b[:], 0)
	if err != nil {
		return false, err
	}
	return strings.Contains(string(b[:n]), "populated 0"), nil
}

// KillAll kills what is in the leaf and returns when it has died: at once, unless
// the kernel holds a process.
func (l *Leaf) KillAll() error {
	fd, err := unix.Open(l.dir+"/cgroup.events", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "cgroup.events")
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	// The kernel reports each change of this file as an exceptional condition, which
	// wakes Go's poller (cgroups(7)); it does so at most every 10 ms.
	var result error
	err = raw.Read(func(fd uintptr) bool {
		var empty bool
		if empty, result = emptyAt(int(fd)); result == nil && !empty {
			result = l.Kill()
		}
		return empty || result != nil
	})
	return errors.Join(err, result)
}

func writeFile(name, text string) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		return &os.PathError{Op: "write", Path: name, Err: err}
	}
	return nil
}
