package direct

import (
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// The role of the self-test's child. Any program that links this package can play
// it, with no cooperation; it takes the variable and both arguments.
const (
	checkProgram = "/proc/self/exe"
	checkArg     = "sockd-direct-check"
	checkMark    = "SOCKD_DIRECT_CHECK"
	checkUmask   = 0o027
	checkLeak    = 200 // descriptors from here to checkEnd are looked for
	checkEnd     = 300

	passed = "passed"
)

func checkSpec() *Spec {
	s := &Spec{Cgroup: -1}
	s.Argv = []string{checkProgram, checkArg}
	s.Env = []string{checkMark + "=1", "LISTEN_PID=1"}
	s.PidEnv, s.PidfdEnv = []string{"LISTEN_PID"}, []string{"LISTEN_PIDFDID"}
	s.Umask = checkUmask
	s.Dir = "/"
	return s
}

func init() {
	if os.Getenv(checkMark) == "" || len(os.Args) != 2 || os.Args[0] != checkProgram || os.Args[1] != checkArg {
		return
	}
	complaint := check()
	if complaint == "" {
		complaint = passed
	}
	unix.Write(1, []byte(complaint))
	os.Exit(0)
}

// check looks at what this process was started with, and says what is wrong.
func check() string {
	pid := os.Getpid()
	if v := os.Getenv("LISTEN_PID"); v != strconv.Itoa(pid) {
		return "LISTEN_PID is " + v + " in process " + strconv.Itoa(pid)
	}
	if v := os.Getenv("LISTEN_PIDFDID"); v != pidfdID(pid) {
		return "LISTEN_PIDFDID is " + v + ", not " + pidfdID(pid)
	}
	if !same(0, 3) || !same(1, 2) || same(0, 1) {
		return "descriptors in the wrong places"
	}
	for fd := 4; fd < checkEnd; fd++ {
		if fd == 32 {
			fd = checkLeak
		}
		// What Go's runtime may have opened is closed on exec.
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags == 0 {
			return "descriptor " + strconv.Itoa(fd) + " is open"
		}
	}
	if sid, err := unix.Getsid(0); err != nil || sid != pid {
		return "not the leader of a session"
	}
	if mask := syscall.Umask(0); mask != checkUmask {
		return "umask is " + strconv.FormatInt(int64(mask), 8)
	}
	if dir, err := os.Getwd(); err != nil || dir != "/" {
		return "in the wrong folder, " + dir
	}
	return ""
}

// pidfdID is "" where a pidfd's inode number means nothing.
func pidfdID(pid int) string {
	if !pidfs() {
		return ""
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return ""
	}
	return strconv.FormatUint(st.Ino, 10)
}

// same tells whether two descriptors are open and mean the same file.
func same(a, b int) bool {
	var sa, sb unix.Stat_t
	return unix.Fstat(a, &sa) == nil && unix.Fstat(b, &sb) == nil && sa.Dev == sb.Dev && sa.Ino == sb.Ino
}
