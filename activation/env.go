package activation

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotActivated says that this process was given no sockets: LISTEN_PID or
// LISTEN_FDS is missing, or they are meant for another process, or all that was passed
// is the private socket of a readiness gate and what a process before this one has
// stored. A program that can listen by itself does so then; Listen and Serve do it for
// you.
var ErrNotActivated = errors.New("activation: this process was given no sockets")

// firstFD is where passed descriptors start: SD_LISTEN_FDS_START of sd_listen_fds(3).
const firstFD = 3

// mostFDs is the largest LISTEN_FDS believed: the kernel's default for fs.nr_open.
const mostFDs = 1 << 20

// variables are what a supervisor sets for the sockets it passes.
var variables = []string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"}

// parse reads what env says of sockets passed to the process with this pid and
// this pidfd inode (0: unknown) and returns a name for each descriptor from
// firstFD on. The order of the checks is that of sd_listen_fds(3), which also
// regards a foreign pid as "not for us" and everything malformed as an error.
func parse(env map[string]string, pid int, pidfdID uint64) ([]string, error) {
	text, ok := env["LISTEN_PID"]
	if !ok {
		return nil, ErrNotActivated
	}
	want, err := strconv.ParseInt(text, 10, 32)
	if err != nil || want <= 0 {
		return nil, fmt.Errorf("activation: LISTEN_PID=%q is not a process id", text)
	}
	if int(want) != pid {
		return nil, fmt.Errorf("%w: LISTEN_PID is %d and this is process %d (a shell or launcher in between?)",
			ErrNotActivated, want, pid)
	}
	if text, ok := env["LISTEN_PIDFDID"]; ok {
		id, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("activation: LISTEN_PIDFDID=%q is not a number", text)
		}
		if pidfdID != 0 && id != pidfdID {
			return nil, fmt.Errorf("%w: LISTEN_PIDFDID is %d and this process has %d", ErrNotActivated, id, pidfdID)
		}
	}
	text, ok = env["LISTEN_FDS"]
	if !ok {
		return nil, ErrNotActivated
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 || n > mostFDs {
		return nil, fmt.Errorf("activation: LISTEN_FDS=%q is not a number from 1 to %d", text, mostFDs)
	}
	return parseNames(env, int(n))
}

// parseNames gives n descriptors their names. Without LISTEN_FDNAMES each is
// "unknown", as in sd_listen_fds_with_names(3).
func parseNames(env map[string]string, n int) ([]string, error) {
	text, ok := env["LISTEN_FDNAMES"]
	if !ok {
		names := make([]string, n)
		for i := range names {
			names[i] = "unknown"
		}
		return names, nil
	}
	if got := strings.Count(text, ":") + 1; got != n {
		return nil, fmt.Errorf("activation: LISTEN_FDNAMES=%q has %d names and LISTEN_FDS says %d", text, got, n)
	}
	return strings.Split(text, ":"), nil
}

// consume takes the variables out of the environment, so that programs started by
// this one do not believe that they are meant.
func consume(names ...string) map[string]string {
	env := make(map[string]string, len(names))
	for _, name := range names {
		if value, ok := os.LookupEnv(name); ok {
			env[name] = value
			os.Unsetenv(name) // cannot fail: the name is valid
		}
	}
	return env
}

// pidfsMagic is the type of the file system in which a pidfd's inode number is
// unique for the boot (PID_FS_MAGIC in linux/magic.h, Linux 6.9). On older kernels
// all pidfds share one inode, which says nothing.
const pidfsMagic = 0x50494446

// ownPidfdID returns the inode number of this process's pidfd; 0 if the kernel has none.
func ownPidfdID() uint64 {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(fd, &fs) != nil || fs.Type != pidfsMagic || unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}
