package sys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrNoCgroup means that this process may not make cgroups below its own: there
// is no cgroup v2, or it is not ours to write.
var ErrNoCgroup = errors.New("no writable cgroup v2")

// A Cgroup is the folder below our own cgroup in which every run gets a leaf.
type Cgroup struct {
	dir  string // in the file system
	path string // as in /proc/PID/cgroup
	next atomic.Uint64
}

// OpenCgroup makes the folder beside our own processes, in the cgroup
// that we are in. It takes away what dead ones have left behind, if that is empty.
// No controller is switched on, so the rule against inner processes does not bite.
func OpenCgroup() (*Cgroup, error) {
	own, path, err := ownCgroup()
	if err != nil {
		return nil, err
	}
	sweepDead(own)
	// CLONE_INTO_CGROUP asks for the right to move processes out of where we are.
	if err := unix.Access(filepath.Join(own, "cgroup.procs"), unix.W_OK); err != nil {
		return nil, fmt.Errorf("%w: %s/cgroup.procs: %w", ErrNoCgroup, own, err)
	}
	for n := 0; ; n++ {
		name := fmt.Sprintf("%s%d-%d", cgroupsOf(pidNamespace()), os.Getpid(), n)
		err := os.Mkdir(filepath.Join(own, name), 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue // ours of another keeper in this process
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoCgroup, err)
		}
		return &Cgroup{dir: filepath.Join(own, name), path: filepath.Join(path, name)}, nil
	}
}

// cgroupsOf is what the names of our folders begin with: sockd-NAMESPACE-PID-N. A
// pid says who lives only in the pid namespace it is of, and the same folder may be
// seen from several.
func cgroupsOf(namespace uint64) string { return fmt.Sprintf("sockd-%d-", namespace) }

// pidNamespace is the number of our pid namespace; 0 where /proc does not tell.
func pidNamespace() uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/pid", &st) != nil {
		return 0
	}
	return st.Ino
}

// ownCgroup finds the v2 cgroup of this process: its folder, which is anywhere in
// a hybrid layout, and its path as /proc/PID/cgroup has it.
func ownCgroup() (dir, path string, err error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", "", fmt.Errorf("%w: %w", ErrNoCgroup, err)
	}
	path, ok := v2Path(string(b))
	if !ok {
		return "", "", fmt.Errorf("%w: none in /proc/self/cgroup", ErrNoCgroup)
	}
	if b, err = os.ReadFile("/proc/self/mountinfo"); err != nil {
		return "", "", fmt.Errorf("%w: %w", ErrNoCgroup, err)
	}
	if dir, ok = v2Dir(string(b), path); !ok {
		return "", "", fmt.Errorf("%w: no mount shows %s", ErrNoCgroup, path)
	}
	return dir, path, nil
}

// v2Path returns the path in the line of hierarchy 0 of a /proc/PID/cgroup.
func v2Path(text string) (string, bool) {
	for line := range strings.Lines(text) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return path, true
		}
	}
	return "", false
}

// v2Dir returns where a cgroup2 mount of a /proc/PID/mountinfo shows path.
func v2Dir(text, path string) (string, bool) {
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		root, point := unescape(fields[3]), unescape(fields[4])
		rest, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/"))
		if ok && (rest == "" || rest[0] == '/') && !strings.Contains(rest, "/..") {
			return filepath.Join(point, rest), true
		}
	}
	return "", false
}

// unescape undoes \040 and its like in mountinfo (proc_pid_mountinfo(5)).
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// sweepDead removes empty folders whose maker, of our pid namespace, is dead. A
// folder with processes in it cannot be removed, and stays.
func sweepDead(own string) {
	entries, err := os.ReadDir(own)
	if err != nil {
		return
	}
	prefix := cgroupsOf(pidNamespace())
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), prefix)
		number, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(number)
		if ok && err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			removeTree(filepath.Join(own, e.Name()))
		}
	}
}

// removeTree removes a cgroup and those below it, as far as they are empty.
func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeTree(filepath.Join(dir, e.Name()))
		}
	}
	return unix.Rmdir(dir)
}

// Close removes the folder if no leaf is left in it.
func (c *Cgroup) Close() { removeTree(c.dir) }
