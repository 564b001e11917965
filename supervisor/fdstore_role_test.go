package supervisor

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { roles["keepsake"] = keepsake }

// keepsake is a service that does as it is told on its first socket, a line for
// each connection, and answers when the supervisor has taken notice:
//
//	list                  NAME=CONTENT of each descriptor after the sockets
//	memfd NAME CONTENT    store a new memfd
//	dial NAME ADDRESS     store a connection
//	say N TEXT            write to the Nth stored descriptor
//	send TEXT\nTEXT N     any message, with N new memfds
//	again NAME N          store the Nth stored descriptor once more
//	epoll NAME, device NAME, listener NAME
//	exit CODE
func keepsake() {
	ln, err := net.FileListener(os.NewFile(3, ""))
	if err != nil {
		fmt.Fprintln(os.Stderr, "listener:", err)
		os.Exit(96)
	}
	notify("READY=1")
	go func() {
		waitTERM()
		os.Exit(0)
	}()
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		line, _ := bufio.NewReader(c).ReadString('\n')
		words := strings.Fields(line)
		if len(words) == 0 {
			c.Close()
			continue
		}
		fmt.Fprintln(c, obey(words[0], words[1:]))
		c.Close()
	}
}

func obey(verb string, args []string) string {
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	nth := func(s string) int { n, _ := strconv.Atoi(s); return 3 + number("TEST_SOCKETS") + n }
	var fd int
	var err error
	switch verb {
	case "list":
		return listStored()
	case "exit":
		n, _ := strconv.Atoi(arg(0))
		os.Exit(n)
	case "say":
		_, err = unix.Write(nth(arg(0)), []byte(arg(1)+"\n"))
		return fmt.Sprint("said ", err)
	case "send":
		n, _ := strconv.Atoi(arg(1))
		var fds []int
		for range n {
			fds = append(fds, memfd("x"))
		}
		return tell(strings.ReplaceAll(arg(0), `\n`, "\n"), fds...)
	case "memfd":
		fd = memfd(arg(1))
	case "dial":
		var c net.Conn
		if c, err = net.Dial("tcp", arg(1)); err == nil {
			f, _ := c.(*net.TCPConn).File()
			c.Close()
			defer f.Close()
			fd = int(f.Fd())
		}
	case "again":
		fd = nth(arg(1))
	case "listener":
		fd = 3
	case "epoll":
		fd, err = unix.EpollCreate1(0)
	case "device":
		fd, err = unix.Open("/dev/null", unix.O_RDONLY, 0)
	}
	if err != nil {
		return err.Error()
	}
	text := "FDSTORE=1"
	if arg(0) != "-" {
		text += "\nFDNAME=" + arg(0)
	}
	if os.Getenv("TEST_POLL") == "0" {
		text += "\nFDPOLL=0"
	}
	return tell(text, fd)
}

func memfd(content string) int {
	fd, err := unix.MemfdCreate("keepsake", unix.MFD_CLOEXEC)
	if err == nil {
		_, err = unix.Write(fd, []byte(content))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "memfd:", err)
	}
	return fd
}

// listStored says what there is after the sockets.
func listStored() string {
	var b strings.Builder
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	if len(names) != number("LISTEN_FDS") || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return "LISTEN_FDS is wrong"
	}
	for i, name := range names[number("TEST_SOCKETS"):] {
		content := make([]byte, 100)
		n, err := unix.Pread(3+number("TEST_SOCKETS")+i, content, 0)
		if err != nil {
			content, n = []byte("socket"), 6
		}
		fmt.Fprintf(&b, "%s=%s ", name, content[:n])
	}
	return strings.TrimSpace(b.String())
}

// tell sends a message with descriptors, and waits until it has been dealt with.
func tell(text string, fds ...int) string {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	to := &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
	if err := unix.Sendmsg(fd, []byte(text), unix.UnixRights(fds...), to, 0); err != nil {
		return err.Error()
	}
	r, w, _ := os.Pipe()
	defer r.Close()
	err = unix.Sendmsg(fd, []byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), to, 0)
	w.Close()
	if err != nil {
		return err.Error()
	}
	r.SetReadDeadline(time.Now().Add(patience))
	r.Read(make([]byte, 1))
	return "told"
}

// order has keepsake do something, and returns its answer.
func order(t *testing.T, address, line string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintln(c, line)
	text, err := bufio.NewReader(c).ReadString('\n')
	if err != nil && !strings.HasPrefix(line, "exit") {
		t.Fatalf("%s: %v", line, err)
	}
	return strings.TrimSpace(text)
}

// wantOrder is order with an answer that is wanted.
func wantOrder(t *testing.T, address, line, want string) {
	t.Helper()
	if got := order(t, address, line); got != want {
		t.Fatalf("%s: %q, want %q", line, got, want)
	}
}

// sendWith sends a message to a notify socket.
func sendWith(t *testing.T, address, text string, fds ...int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendmsg(fd, []byte(text), unix.UnixRights(fds...), &unix.SockaddrUnix{Name: address}, 0); err != nil {
		t.Fatal(err)
	}
}
