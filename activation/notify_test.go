package activation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A manager is the supervisor's end of NOTIFY_SOCKET.
type manager struct{ conn *net.UnixConn }

func newManager(t *testing.T, name string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	deadline, _ := limited(t).Deadline()
	conn.SetReadDeadline(deadline)
	return &manager{conn}
}

func (m *manager) env() string { return "NOTIFY_SOCKET=" + m.conn.LocalAddr().String() }

// read returns the next notification and the descriptors that came with it.
func (m *manager) read(t *testing.T) (string, []int) {
	t.Helper()
	b, oob := make([]byte, 2*mostBytes), make([]byte, 2000)
	n, oobn, _, _, err := m.conn.ReadMsgUnix(b, oob)
	if err != nil {
		t.Fatal("no notification: ", err)
	}
	var fds []int
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range messages {
		got, err := unix.ParseUnixRights(&message)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, got...)
	}
	return string(b[:n]), fds
}

// notifyRole says everything there is to say, in order.
func notifyRole() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, f := range []func() error{
		Ready, Reloading, func() error { return Status("%d requests,\nand %s", 3, strings.Repeat("é", mostBytes)) },
		func() error { return Notify("MAINPID=1", "X_OWN=yes") },
		func() error { return Barrier(ctx) }, Stopping,
	} {
		if err := f(); err != nil {
			return err
		}
	}
	cancel()
	fmt.Println("cancelled:", Barrier(ctx))
	for _, lines := range [][]string{{}, {"READY"}, {"=1"}, {"STATUS=a\nREADY=1"}, {"A=" + strings.Repeat("x", mostBytes)}} {
		if err := Notify(lines...); err == nil {
			fmt.Printf("sent: %.20q\n", lines)
		}
	}
	if value, ok := os.LookupEnv("NOTIFY_SOCKET"); ok {
		fmt.Println("left:", value)
	}
	return nil
}

func TestNotify(t *testing.T) {
	for _, tt := range []struct{ name, socket string }{
		{"path", filepath.Join(t.TempDir(), "notify")},
		{"abstract", fmt.Sprintf("@sockd-activation-test-%d", os.Getpid())},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newManager(t, tt.socket)
			c := start(t, "notify", nil, m.env())
			for _, want := range []string{`READY=1`, `RELOADING=1\nMONOTONIC_USEC=[1-9]\d*`,
				`STATUS=3 requests, and é+`, `MAINPID=1\nX_OWN=yes`} {
				got, fds := m.read(t)
				if !regexp.MustCompile("^"+want+"$").MatchString(got) || len(fds) != 0 || len(got) > mostBytes || strings.HasPrefix(got, "STATUS=") && len(got) != mostBytes-1 {
					t.Errorf("got %.60q (%d bytes) with %d descriptors, want %q", got, len(got), len(fds), want)
				}
			}
			got, fds := m.read(t)
			if got != "BARRIER=1" || len(fds) != 1 {
				t.Fatalf("got %q with %d descriptors", got, len(fds))
			}
			// While we hold the descriptor nothing may follow.
			m.conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if n, _, err := m.conn.ReadFrom(make([]byte, 100)); err == nil {
				t.Errorf("%d bytes overtook the barrier", n)
			}
			deadline, _ := limited(t).Deadline()
			m.conn.SetReadDeadline(deadline)
			unix.Close(fds[0])
			if got, _ := m.read(t); got != "STOPPING=1" {
				t.Errorf("got %q after the barrier", got)
			}
			if got, fds := m.read(t); got != "BARRIER=1" || len(fds) != 1 {
				t.Errorf("got %q", got)
			} else {
				defer unix.Close(fds[0]) // held: only its context ends that wait
			}
			if got, want := c.rest(t), "cancelled: activation: notify: barrier: context canceled\n"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestNotifyWithoutSupervisor(t *testing.T) {
	if got := start(t, "notify", nil).rest(t); !strings.HasPrefix(got, "cancelled: <nil>") {
		t.Error(got)
	}
	gone := filepath.Join(t.TempDir(), "gone")
	if got := start(t, "notify", nil, "NOTIFY_SOCKET="+gone).rest(t); !strings.Contains(got, gone) {
		t.Errorf("nobody listens there: %q", got)
	}
	if got := start(t, "notify", nil, "NOTIFY_SOCKET=/"+strings.Repeat("x", 107)).rest(t); !strings.Contains(got, "has 108 bytes, and a Unix socket's path 107 at most") {
		t.Errorf("a path that is too long: %q", got)
	}
	if got := start(t, "notify", nil, "NOTIFY_SOCKET=/"+strings.Repeat("x", 106)).rest(t); !strings.Contains(got, "no such file") {
		t.Errorf("the longest path: %q", got)
	}
	if got := start(t, "notify", nil, "NOTIFY_SOCKET=vsock:2:1").rest(t); !strings.Contains(got, "neither a path nor an abstract name") {
		t.Errorf("an address we do not speak: %q", got)
	}
}

// crammed fills the supervisor's queue and says what becomes of who comes then: a
// barrier and a watchdog end with their contexts, and nobody before there is room.
func crammed() error {
	patience = longWait
	full := filling()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	fmt.Println("barrier:", errors.Is(Barrier(ctx), context.DeadlineExceeded))
	os.Setenv("WATCHDOG_USEC", "1000000")
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	fmt.Println("watchdog:", errors.Is(Watchdog(ctx), context.DeadlineExceeded))
	fmt.Println("full after", full)
	return Notify("STATUS=last")
}

// filling sends until nothing fits any more, and returns how many did.
func filling() (n int) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		err := notify(ctx, []string{"STATUS=more"})
		cancel()
		if err != nil {
			return n
		}
		n++
	}
}

func TestNotifyWhereNobodyReads(t *testing.T) {
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	c := start(t, "crammed", nil, m.env())
	for _, want := range []string{"barrier: true", "watchdog: true"} {
		if got := c.line(t); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	var full int
	if line := c.line(t); line == "" {
		t.Fatal("no number")
	} else if _, err := fmt.Sscanf(line, "full after %d", &full); err != nil || full == 0 {
		t.Fatalf("got %q, %v", line, err)
	}
	for range full {
		if got, _ := m.read(t); got != "STATUS=more" {
			t.Errorf("got %q", got)
		}
	}
	if got, _ := m.read(t); got != "STATUS=last" {
		t.Errorf("got %q: who waited for room was not woken", got)
	}
	if rest := c.rest(t); rest != "" || !c.ProcessState.Success() {
		t.Errorf("%v: %s", c.ProcessState, rest)
	}
}

// A supervisor that goes while somebody waits for it to read ends that wait.
func TestNotifyWhoLeaves(t *testing.T) {
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	c := start(t, "crammed", nil, m.env())
	for range 3 {
		c.line(t)
	}
	m.conn.Close()
	if rest := c.rest(t); !strings.Contains(rest, "connection refused") && !strings.Contains(rest, "connection reset") && !strings.Contains(rest, "no such file") {
		t.Errorf("got %q", rest)
	}
}
