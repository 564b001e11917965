package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A world is what a sockd finds itself in. The test binary makes it, in a process
// of its own, and then becomes sockd: what exec keeps (namespaces, filters, limits,
// masks, descriptors) is there from sockd's first instant.
type world struct {
	Namespaces uintptr           // CLONE_NEWPID and the like
	Root       string            // becomes /, with nothing of the old one left
	ReadOnly   bool              // … and nobody can write to it
	NoProc     bool              // … and has no /proc
	Tmpfs      []string          // … and has these folders in memory
	Full       string            // this folder has room for names and for not one byte
	LowPorts   bool              // everybody may bind ports from 0
	NoCgroup   bool              // /sys/fs/cgroup is empty
	Answers    map[string]int    // system calls, and the errno that a filter answers them with
	Limits     map[int]uint64    // RLIMIT_…
	Umask      int               // 0: as it is
	Blocked    bool              // every signal is blocked
	Ignored    []int             // signals that are ignored
	Closed     bool              // descriptors 0 to 2 are closed; then sockd's log is lost
	Dir        string            // working directory
	DirGone    bool              // … which has been removed
	UID        int               // not 0: as this user
	Groups     []string          // folders of cgroups to be in
	Args       []string          // of sockd
	Env        []string          // complete, but for what start needs
	Raw        [][]byte          // of Env; JSON would change what is no UTF-8
	Vars       map[string]string // more of it

	stdout *os.File // nil: kept in running.stdout
	stderr *os.File // nil: its lines come to running.lines
}

const worldVariable = "TEST_WORLD"

// In the process that is to become sockd. Only its one goroutine runs, on the
// thread that exec keeps.
func init() {
	file := os.Getenv(worldVariable) // a file, for a string may have 128 KiB and a world's environment more
	if file == "" {
		return
	}
	runtime.LockOSThread()
	var w world
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &w)
	}
	if err == nil {
		err = w.enter()
	}
	fmt.Fprintln(os.Stderr, "no such world:", err)
	os.Exit(125)
}

// calls that a filter can be asked to answer.
var calls = map[string]uint32{
	"pidfd_open": unix.SYS_PIDFD_OPEN, "pidfd_send_signal": unix.SYS_PIDFD_SEND_SIGNAL, "clone3": unix.SYS_CLONE3, "close_range": unix.SYS_CLOSE_RANGE,
	"memfd_create": unix.SYS_MEMFD_CREATE, "epoll_pwait2": unix.SYS_EPOLL_PWAIT2, "tee": unix.SYS_TEE, "waitid": unix.SYS_WAITID, "prlimit64": unix.SYS_PRLIMIT64,
	"bpf": unix.SYS_BPF, "splice": unix.SYS_SPLICE, "pidfd_getfd": unix.SYS_PIDFD_GETFD, "setsid": unix.SYS_SETSID, "setpgid": unix.SYS_SETPGID,
}

// enter makes the world around this process and becomes sockd.
func (w *world) enter() error {
	for _, dir := range w.Groups {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
			return err
		}
	}
	if w.Namespaces&unix.CLONE_NEWNET != 0 {
		if err := loopback(); err != nil {
			return fmt.Errorf("loopback: %w", err)
		}
	}
	if w.Namespaces&unix.CLONE_NEWNS != 0 {
		if err := w.mount(); err != nil {
			return err
		}
	}
	program := filepath.Join(string(w.Raw[0]), "sockd") // see start
	if w.Root != "" {
		program = "/sockd"
	}
	for which, n := range w.Limits {
		if err := unix.Setrlimit(which, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("limit %d: %w", which, err)
		}
	}
	if w.Umask != 0 {
		unix.Umask(w.Umask)
	}
	if w.Dir != "" {
		if err := os.Chdir(w.Dir); err != nil {
			return err
		}
		if w.DirGone {
			os.Remove(w.Dir)
		}
	}
	if w.UID != 0 {
		if err := unix.Setgroups(nil); err != nil {
			return err
		}
		if err := unix.Setresgid(w.UID, w.UID, w.UID); err != nil {
			return err
		}
		if err := unix.Setresuid(w.UID, w.UID, w.UID); err != nil {
			return err
		}
	}
	for name, errno := range w.Answers {
		if err := answer(calls[name], uint32(errno)); err != nil {
			return fmt.Errorf("filter: %w", err)
		}
	}
	for _, sig := range w.Ignored {
		signal.Ignore(syscall.Signal(sig))
	}
	if w.Blocked {
		var all unix.Sigset_t
		for i := range all.Val {
			all.Val[i] = ^all.Val[i]
		}
		if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, nil); err != nil {
			return err
		}
	}
	if w.Closed {
		for fd := range 3 {
			unix.Close(fd)
		}
	}
	env := make([]string, len(w.Raw)-1)
	for i, v := range w.Raw[1:] {
		env[i] = string(v)
	}
	return syscall.Exec(program, append([]string{program}, w.Args...), env)
}

// answer makes the kernel answer a system call with an error, from here on.
func answer(call, errno uint32) error {
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number; seccomp_data begins with it
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | errno},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, _, err := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&filter))); err != 0 {
		return err
	}
	return nil
}

// loopback switches it on, in a fresh network namespace.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

// mount arranges the file systems, as a container engine does.
func (w *world) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private: %w", err)
	}
	if w.Full != "" {
		if err := fill(w.Full); err != nil {
			return fmt.Errorf("full folder: %w", err)
		}
	}
	if w.Root == "" {
		if w.NoCgroup {
			if err := unix.Mount("none", "/sys/fs/cgroup", "tmpfs", unix.MS_RDONLY, ""); err != nil {
				return fmt.Errorf("no cgroup: %w", err)
			}
		}
		if w.Namespaces&unix.CLONE_NEWPID == 0 {
			return nil
		}
		return unix.Mount("proc", "/proc", "proc", 0, "")
	}
	if err := unix.Mount(w.Root, w.Root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("root: %w", err)
	}
	if !w.NoProc {
		if err := unix.Mount("proc", filepath.Join(w.Root, "proc"), "proc", 0, ""); err != nil {
			return fmt.Errorf("proc: %w", err)
		}
	}
	if err := unix.Mount("/dev/null", filepath.Join(w.Root, "dev/null"), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("/dev/null: %w", err)
	}
	for _, dir := range w.Tmpfs {
		if err := unix.Mount("tmpfs", filepath.Join(w.Root, dir), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m,mode=1777"); err != nil {
			return fmt.Errorf("tmpfs: %w", err)
		}
	}
	if w.LowPorts {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0); err != nil {
			return err
		}
	}
	if err := os.Chdir(w.Root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if w.ReadOnly {
		return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
	}
	return nil
}

// fill mounts a file system of one page, and takes the page.
func fill(dir string) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4k,mode=0700"); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 4096), 0o600)
}
