package sys

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A way starts a program and waits until it runs. Package sys has two, and they
// are one to everybody else: every job must end in the same world.
type way struct {
	name  string
	start func(*Spec) (child *Process, execed func() error, err error)
}

var ways = []way{{"trampoline", throughTrampoline}, {"direct", directly}}

func throughTrampoline(s *Spec) (*Process, func() error, error) {
	child, err := start(s)
	if err != nil {
		return nil, nil, err
	}
	return child.Process, child.Execed, nil
}

func directly(s *Spec) (*Process, func() error, error) {
	child, ok, err := startDirect(s)
	if !ok {
		return nil, nil, errors.New("not for the direct way")
	}
	if err != nil {
		return nil, nil, err
	}
	return child.Process, child.Execed, nil
}

func needDirect(t testing.TB) {
	t.Helper()
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("no direct way on this architecture")
	}
	if err := Direct(); err != nil {
		t.Fatal(err)
	}
}

// An outcome is all that a start has brought about.
type outcome struct {
	pid     int
	failure error
	status  Status
	output  string
}

// run starts s and follows it to its end. Output goes to one pipe of the test's,
// the same for every run, so that nothing about it tells them apart.
func (w way) run(t testing.TB, out *pipe, s Spec) outcome {
	t.Helper()
	s.Output = out.in
	child, execed, err := w.start(&s)
	if err != nil {
		t.Fatalf("%s: %v", w.name, err)
	}
	o := outcome{pid: child.Pid, failure: execed()}
	if o.status, err = child.Wait(); err != nil {
		t.Fatal(err)
	}
	child.Reap()
	o.output = out.drain(t)
	return o
}

// A pipe holds both ends; what it is given fits in.
type pipe struct{ out, in int }

func newPipe(t testing.TB) *pipe {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	if _, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, 1<<20); err != nil {
		t.Fatal(err)
	}
	return &pipe{fds[0], fds[1]}
}

// drain returns what is in the pipe: nobody writes any more.
func (p *pipe) drain(t testing.TB) string {
	t.Helper()
	n, err := unix.IoctlGetInt(p.out, unix.TIOCINQ)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	for at := 0; at < n; {
		got, err := unix.Read(p.out, b[at:])
		if err != nil || got == 0 {
			t.Fatal(got, err, io.ErrUnexpectedEOF)
		}
		at += got
	}
	return string(b)
}

func init() {
	roles["world"] = world
}

// world prints what a program can see of how it was started, as far as Go does not
// change it before main.
func world() int {
	var b strings.Builder // printing opens Go's poller, which would be in it
	for fd := range 2048 {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags != 0 {
			continue // close-on-exec: not inherited, but opened by Go's runtime
		}
		file, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		state, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		fmt.Fprintf(&b, "descriptor %d %s %#o\n", fd, file, state)
	}
	fmt.Fprintf(&b, "arguments %q\n", os.Args)
	env := os.Environ()
	for i, kv := range env {
		if name, value, _ := strings.Cut(kv, "="); value != "" && value == ownPidfdID() {
			env[i] = name + "=our pidfd"
		}
	}
	fmt.Fprintf(&b, "environment %q\n", env)
	slices.Sort(env)
	fmt.Fprintf(&b, "sorted %q\n", env)
	dir, err := os.Getwd()
	fmt.Fprintln(&b, "directory", dir, err)
	mask := unix.Umask(0)
	fmt.Fprintf(&b, "umask %#o\n", mask)
	groups, _ := os.Getgroups()
	fmt.Fprintln(&b, "ids", os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid(), groups)
	sid, _ := unix.Getsid(0)
	fmt.Fprintln(&b, "session", sid, "group", unix.Getpgrp(), "process", os.Getpid())
	os.Stdout.WriteString(b.String())
	return 0
}

// looks is a job that shows the kernel's view of a process that has no runtime to
// change it: signals, limits, capabilities, cgroup, session, descriptors.
func looks(files int) Spec {
	argv := []string{"cat", "/proc/self/status", "/proc/self/limits", "/proc/self/cgroup", "/proc/self/stat",
		"/proc/self/oom_score_adj", "/proc/self/timerslack_ns", "/proc/self/personality", "/proc/self/comm"}
	for fd := range 3 + files {
		argv = append(argv, fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	}
	return spec(argv...)
}

// seen keeps the lines of a program's output that are to be equal, with its own
// pid and what must be different taken out.
func seen(o outcome) string {
	var kept strings.Builder
	pid := fmt.Sprint(o.pid)
	for line := range strings.Lines(o.output) {
		f := strings.Fields(line)
		if len(f) == 0 || volatile(f[0]) {
			continue
		}
		if f[0] == pid { // /proc/self/stat: state, parent, group, session, terminal, nice, threads
			f = []string{"stat", f[1], f[3], f[4], f[5], f[6], f[17], f[18], f[19], f[37]}
		}
		for i := range f {
			if f[i] == pid && f[0] != "Max" { // it may be the number of a limit too
				f[i] = "PID"
			}
			f[i] = strings.ReplaceAll(strings.ReplaceAll(f[i], "run-"+leafNumber(o.output), "run-N"), "PID="+pid+`"`, `PID=OWN"`)
		}
		fmt.Fprintln(&kept, strings.Join(f, " "))
	}
	return kept.String()
}

// leafNumber finds the number in a cgroup's name: each run has a new one.
func leafNumber(output string) string {
	_, rest, ok := strings.Cut(output, "/run-")
	if !ok {
		return "none"
	}
	return rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
}

// volatile lines of /proc/self/status tell of the past or of memory.
func volatile(first string) bool {
	return strings.HasPrefix(first, "Vm") || strings.HasPrefix(first, "Rss") || strings.HasPrefix(first, "SigQ") ||
		strings.HasSuffix(first, "voluntary_ctxt_switches:") || first == "FDSize:"
}
