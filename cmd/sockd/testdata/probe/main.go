// Probe is a service for sockd's own tests, static so that it runs in an empty
// root. Its first argument says what it does.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/activation"
)

func main() {
	n := 0
	if len(os.Args) > 2 {
		n, _ = strconv.Atoi(os.Args[2])
	}
	switch os.Args[1] {
	case "exit":
		os.Exit(n)
	case "exit-by-instance": // web@1 exits with 0, web@256 with 255
		os.Exit(instance() - 1)
	case "die":
		die(n)
	case "die-by-instance": // web@9 is killed by signal 9
		die(instance())
	case "serve":
		serve()
	case "talk": // a line of so many bytes for each connection
		talk(n)
	case "look": // writes what it sees into the file
		look(os.Args[2])
	case "orphans": // whenever somebody connects
		orphans(n)
	case "clock": // its last words are the time; ends after so many milliseconds
		<-time.After(time.Duration(n) * time.Millisecond)
		fmt.Println(time.Now().UnixNano())
	case "floor": // how late others hear of a clock's end
		floor(n)
	case "count": // numbered lines, as fast as they are taken
		for i := range n {
			fmt.Println("line", i)
		}
	case "wait":
		wait()
	case "deaf": // does not leave when told to, and neither does a child in a session of its own
		syscall.ForkExec("/proc/self/exe", []string{"probe", "deafer"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}})
		deaf(func() { activation.Ready() })
	case "deafer":
		deaf(func() {})
	case "fork": // processes that wait, as many as it can get
		fork()
	default:
		fmt.Fprintln(os.Stderr, "probe: no such role:", os.Args[1])
		os.Exit(125)
	}
}

func instance() int {
	n, _ := strconv.Atoi(os.Getenv("SOCKD_INSTANCE"))
	return n
}

// die ends by a signal, also by one that Go's runtime would take for its own.
func die(sig int) {
	var action [64]byte // SIG_DFL
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafePointer(&action)), 0, 8, 0, 0)
	unix.Kill(os.Getpid(), unix.Signal(sig))
	wait()
}

func deaf(then func()) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT)
	then()
	for range stop {
	}
}

func wait() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	<-stop
}

// serve answers each connection on every listener with its pid, after READY=1.
func serve() {
	files, err := activation.Files()
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
	for _, f := range files {
		ln, err := net.FileListener(f)
		if err != nil {
			fmt.Fprintln(os.Stderr, "probe:", err)
			os.Exit(1)
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "%d\n", os.Getpid())
				c.Close()
			}
		}()
	}
	activation.Ready()
	fmt.Println("serving")
	wait()
}

// What look sees of the world it was started in.
type seen struct {
	Pid, Umask       int
	Descriptors      []string
	Blocked, Ignored string // signal sets, as in /proc/PID/status
	Dir              string
	Env              []string
	Limit            uint64
}

// descriptors are those that were open at the beginning, but for those of Go's
// runtime: its poller, and the files of the processor quota.
var descriptors = func() (open []string) {
	for fd := range 1024 {
		name, err := os.Readlink(fmt.Sprint("/proc/self/fd/", fd))
		if err == nil && !strings.HasPrefix(name, "anon_inode:[event") && !strings.Contains(name, "/cpu.") {
			open = append(open, fmt.Sprintf("%d %s", fd, name))
		}
	}
	return open
}()

func look(file string) {
	var s seen
	s.Pid, s.Env = os.Getpid(), os.Environ()
	s.Umask = unix.Umask(0)
	s.Dir, _ = os.Getwd()
	var limit unix.Rlimit
	unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &limit)
	s.Limit = limit.Max
	s.Descriptors = descriptors
	status, _ := os.ReadFile("/proc/self/status")
	s.Blocked, s.Ignored = field(string(status), "SigBlk:"), field(string(status), "SigIgn:")
	out, _ := json.Marshal(s)
	os.WriteFile(file+".new", out, 0o644)
	os.Rename(file+".new", file)
	wait()
}

// orphans makes n of them, a thousand at a time, and says when the last is made; again
// for each who connects.
func orphans(n int) {
	listeners, err := activation.Listeners("s")
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
	for {
		c, err := listeners[0].Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "probe:", err)
			os.Exit(1)
		}
		c.Close()
		for made := 0; made < n; made += 1000 {
			pid := brood(min(1000, n-made))
			var st unix.WaitStatus
			for {
				if _, err := unix.Wait4(pid, &st, 0, nil); err != unix.EINTR {
					break
				}
			}
		}
		fmt.Println("made", n)
	}
}

// fork makes children that wait until there is no more to be had.
func fork() {
	n := 0
	for sleeper() > 0 {
		n++
	}
	fmt.Println("full", n)
	wait()
}
