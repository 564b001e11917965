package supervisor

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// The test binary plays the services too: with TEST_ROLE set it is one.
func TestMain(m *testing.M) {
	if role := os.Getenv("TEST_ROLE"); role != "" {
		r, ok := roles[role]
		if !ok {
			fmt.Fprintf(os.Stderr, "no role %q\n", role)
			os.Exit(99)
		}
		r()
		os.Exit(0)
	}
	if len(os.TempDir()) > 20 { // a Unix socket's path may have 107 bytes, and tests have long names
		os.Setenv("TMPDIR", "/tmp")
	}
	os.Exit(m.Run())
}

// roles are the services of the tests. Arguments come in TEST_ variables.
var roles = map[string]func(){
	// Answers each connection with "INSTANCE GENERATION PID\n".
	"serve": serve,
	// Exits at once with TEST_CODE, without looking at its sockets.
	"exit": func() { os.Exit(number("TEST_CODE")) },
	// Prints TEST_TEXT and then waits for SIGTERM.
	"print": func() {
		io.WriteString(os.Stdout, os.Getenv("TEST_TEXT"))
		waitTERM()
	},
	// Waits for SIGTERM and does nothing about it.
	"deaf": func() {
		signal.Ignore(syscall.SIGTERM)
		notify("READY=1")
		select {}
	},
}

// readFile is the text of the file that a variable names.
func readFile(variable string) string {
	text, err := os.ReadFile(os.Getenv(variable))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(94)
	}
	return string(text)
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func number(name string) int {
	n, _ := strconv.Atoi(os.Getenv(name))
	return n
}

func waitTERM() { <-catchTERM() }

// catchTERM is called before a service says that it is ready: from then on it may
// be told to leave.
func catchTERM() <-chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	return c
}

// notify sends one datagram to the supervisor.
func notify(text string) {
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "notify:", err)
		os.Exit(98)
	}
	defer c.Close()
	io.WriteString(c, text)
}

// pidfdID is the inode of our own pidfd; "" where that says nothing (before Linux 6.9).
func pidfdID() string {
	self, err := sys.Open(os.Getpid())
	if err != nil || self.Identity().Inode == 0 {
		return ""
	}
	return strconv.FormatUint(self.Identity().Inode, 10)
}

// serve answers on every socket. TEST_READY_WHEN names a FIFO that somebody must
// write to before it goes on; TEST_READY_AFTER is how long it then takes to become
// ready; TEST_READY=no keeps it from ever saying so; at SIGTERM it finishes what it
// has accepted and ends.
func serve() {
	term := catchTERM()
	n := number("LISTEN_FDS")
	if pid := os.Getenv("LISTEN_PID"); n > 0 && pid != strconv.Itoa(os.Getpid()) {
		fmt.Fprintf(os.Stderr, "LISTEN_PID is %s, I am %d\n", pid, os.Getpid())
		os.Exit(97)
	}
	if id := os.Getenv("LISTEN_PIDFDID"); n > 0 && id != pidfdID() {
		fmt.Fprintf(os.Stderr, "LISTEN_PIDFDID is %q, mine is %q\n", id, pidfdID())
		os.Exit(97)
	}
	if fifo := os.Getenv("TEST_READY_WHEN"); fifo != "" {
		os.ReadFile(fifo)
	}
	if d, err := time.ParseDuration(os.Getenv("TEST_READY_AFTER")); err == nil {
		<-time.After(d)
	}
	var lns []net.Listener
	var loops sync.WaitGroup
	for fd := 3; fd < 3+n; fd++ {
		ln, err := net.FileListener(os.NewFile(uintptr(fd), ""))
		if err != nil {
			fmt.Fprintln(os.Stderr, "listener:", err)
			os.Exit(96)
		}
		lns = append(lns, ln)
		loops.Go(func() { acceptLoop(ln) })
	}
	if os.Getenv("TEST_READY") != "no" {
		notify("READY=1")
	}
	<-term
	for _, ln := range lns {
		ln.Close()
	}
	loops.Wait() // what has been accepted is being served
	served.Wait()
}

// served is what has been accepted.
var served sync.WaitGroup

func acceptLoop(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		served.Go(func() {
			fmt.Fprintf(c, "%s %s %d\n", os.Getenv("SOCKD_INSTANCE"), os.Getenv("SOCKD_GENERATION"), os.Getpid())
			c.Close()
		})
	}
}

// answer is what serve says.
type answer struct {
	instance, gen, pid int
}

// ask connects and reads the answer.
func ask(network, address string) (a answer, err error) {
	c, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return a, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return a, fmt.Errorf("read: %w", err)
	}
	_, err = fmt.Sscanf(strings.TrimSpace(line), "%d %d %d", &a.instance, &a.gen, &a.pid)
	return a, err
}
