package sys

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A notifyCase is a notify socket and a client of it.
type notifyCase struct {
	*testing.T
	fd, client int
	to         unix.Sockaddr
}

func newNotifyCase(t *testing.T) *notifyCase {
	t.Helper()
	fd, address, err := NewNotify()
	if err != nil {
		t.Fatal(err)
	}
	client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd); unix.Close(client) })
	return &notifyCase{t, fd, client, &unix.SockaddrUnix{Name: address}}
}

func (c *notifyCase) send(text string, fds ...int) {
	c.Helper()
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(c.client, []byte(text), oob, c.to, 0); err != nil {
		c.Fatal(err)
	}
}

func (c *notifyCase) read(peek bool) Message {
	c.Helper()
	m, err := ReadNotify(c.fd, peek)
	if err != nil {
		c.Fatal(err)
	}
	return m
}

func (c *notifyCase) empty() {
	c.Helper()
	for _, peek := range []bool{true, false} {
		if m, err := ReadNotify(c.fd, peek); err != unix.EAGAIN {
			c.Errorf("%+v, %v; want EAGAIN", m, err)
		}
	}
}

func TestNotifySocket(t *testing.T) {
	fd, address, err := NewNotify()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if !regexp.MustCompile(`^@sockd/[0-9a-f]{32}$`).MatchString(address) {
		t.Errorf("address %q", address)
	}
	list, err := OptionsOf(fd)
	if err != nil || !strings.Contains(strings.Join(list, " "), "O_NONBLOCK=1") {
		t.Errorf("%v, %v", list, err)
	}
	if size, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); os.Geteuid() == 0 && size < notifyBuffer {
		t.Errorf("receive buffer of %d bytes", size)
	}
	other, address2, err := NewNotify()
	if err != nil || address2 == address {
		t.Errorf("%q again, %v", address2, err)
	}
	unix.Close(other)
}

func TestNotifyPeekThenTake(t *testing.T) {
	c := newNotifyCase(t)
	c.empty()
	c.send("READY=1\nSTATUS=first")
	c.send("STATUS=second")
	for range 3 {
		if m := c.read(true); m.Fields.Status == nil || *m.Fields.Status != "first" || !m.Fields.Ready {
			t.Fatalf("%+v", m)
		}
	}
	m := c.read(false)
	if *m.Fields.Status != "first" || m.Refused != "" || m.Descriptors != 0 {
		t.Errorf("%+v", m)
	}
	if m.Pid != os.Getpid() || m.UID != os.Getuid() || m.GID != os.Getgid() {
		t.Errorf("from %d %d %d", m.Pid, m.UID, m.GID)
	}
	if m := c.read(false); *m.Fields.Status != "second" {
		t.Errorf("%+v", m)
	}
	c.empty()
}

func TestNotifyHarmless(t *testing.T) {
	for _, row := range []struct{ name, text, refused string }{
		{"zero length", "", ""},
		{"exactly 4096", "READY=1\n" + strings.Repeat("x", 4088), ""},
		{"over-long", "READY=1\n" + strings.Repeat("x", 4089), "longer than 4096 bytes"},
		{"far too long", "READY=1\n" + strings.Repeat("x", 100_000), "longer than 4096 bytes"},
		{"NUL inside", "READY=1\x00\n", "a NUL byte inside"},
		{"barrier without descriptor", "BARRIER=1", "BARRIER=1 needs one descriptor and came with 0"},
		{"wrong value", "READY=1\nERRNO=x", `ERRNO: "x" is no error number and no error name`},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newNotifyCase(t)
			c.send(row.text)
			for _, peek := range []bool{true, false} {
				m := c.read(peek)
				if m.Refused != row.refused {
					t.Errorf("refused %q, want %q", m.Refused, row.refused)
				}
				ready := strings.HasPrefix(row.text, "READY=1") && (row.refused == "" || row.name == "wrong value")
				if m.Fields.Ready != ready || m.Fields.Barrier {
					t.Errorf("%+v", m.Fields)
				}
			}
			c.empty()
		})
	}
}

// Whoever speaks is named by the kernel: root may name another living process, and
// nobody can pass for one without the right.
func TestNotifySpoof(t *testing.T) {
	c := newNotifyCase(t)
	as := func(pid, uid int) error {
		oob := unix.UnixCredentials(&unix.Ucred{Pid: int32(pid), Uid: uint32(uid), Gid: uint32(os.Getgid())})
		return unix.Sendmsg(c.client, []byte("READY=1"), oob, c.to, 0)
	}
	if err := as(1<<22+1, os.Getuid()); err == nil {
		t.Error("a pid that nobody has was accepted")
	}
	if os.Geteuid() == 0 {
		if err := as(os.Getppid(), 12345); err != nil {
			t.Fatal(err)
		}
		if m := c.read(false); m.Pid != os.Getppid() || m.UID != 12345 {
			t.Errorf("%+v", m)
		}
	} else if err := as(os.Getppid(), os.Getuid()); err != unix.EPERM {
		t.Errorf("spoofed: %v", err)
	}
	c.empty()
	// A socket without SO_PASSCRED receives no credentials, and nothing counts then.
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 0); err != nil {
		t.Fatal(err)
	}
	c.send("READY=1")
	if m := c.read(false); m.Fields.Ready || !strings.Contains(m.Refused, "without credentials") {
		t.Errorf("%+v", m)
	}
}

// hungUpNow says whether the other end of a pipe is closed everywhere.
func hungUpNow(t *testing.T, fd int) bool {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(p, 0); err != nil {
		t.Fatal(err)
	}
	return p[0].Revents&unix.POLLHUP != 0
}

// The client of a barrier is let go when its message is taken: not by a peek, and
// not before what it said earlier has been taken.
func TestNotifyBarrier(t *testing.T) {
	c := newNotifyCase(t)
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	c.send("READY=1")
	c.send("BARRIER=1", p[1])
	unix.Close(p[1])
	steps := []struct {
		peek, barrier, hup bool
	}{{true, false, false}, {false, false, false}, {true, true, false}, {true, true, false}, {false, true, true}}
	for i, step := range steps {
		if m := c.read(step.peek); m.Fields.Barrier != step.barrier || m.Refused != "" {
			t.Errorf("step %d: %+v", i, m)
		}
		if got := hungUpNow(t, p[0]); got != step.hup {
			t.Errorf("step %d: hung up %v, want %v", i, got, step.hup)
		}
	}
}
