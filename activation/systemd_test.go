package activation

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// activator runs a role under the real systemd-socket-activate, which starts it at
// the first connection or datagram, and waits until that listens.
func activator(t *testing.T, role string, args ...string) *child {
	t.Helper()
	path, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("systemd-socket-activate is not installed")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args = append(args, "-E", roleVar+"="+role, "-E", "GORACE=atexit_sleep_ms=0", self)
	cmd := exec.Command(path, args...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	cmd.Stderr = w
	c := run(t, cmd)
	w.Close()
	said := bufio.NewReader(r)
	line, err := said.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "Listening on ") {
		t.Fatalf("%s said %q, %v", path, line, err)
	}
	go io.Copy(io.Discard, said) // ends when the child has gone
	return c
}

// TestUnderSystemd: each kind of socket, named and not, from systemd's own tool.
func TestUnderSystemd(t *testing.T) {
	dir := t.TempDir()
	port := freePort(t)
	tcp := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
	udp := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
	path := func(network, name string) net.Addr {
		return &net.UnixAddr{Net: network, Name: filepath.Join(dir, name)}
	}
	for _, tt := range []struct {
		name string
		args string
		addr net.Addr
		send string
		want string
	}{
		{"tcp", "--fdname=web", tcp, "", "hello from web"},
		{"tcp without a name", "", tcp, "", "hello from unknown"},
		{"udp", "--datagram --fdname=dns", udp, "datagram", "datagram for dns"},
		{"unix", "--fdname=api", path("unix", "s"), "", "hello from api"},
		{"unixgram", "--datagram --fdname=log", path("unixgram", "d"), "datagram", "datagram for log"},
		{"unixpacket", "--seqpacket --fdname=pkt", path("unixpacket", "q"), "", "hello from pkt"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := activator(t, "echo", append(strings.Fields(tt.args), "-l", tt.addr.String())...)
			if got := dialed(t, tt.addr, tt.send); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if rest := c.rest(t); rest != "serving\n" {
				t.Error(rest)
			}
			if tt.addr.Network()[0] == 'u' && tt.addr.Network() != "udp" {
				if _, err := os.Stat(tt.addr.String()); err != nil {
					t.Error("the path is systemd's:", err)
				}
			}
		})
	}
}

// TestServeUnderSystemd: the same service, told to leave by SIGTERM.
func TestServeUnderSystemd(t *testing.T) {
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	t.Setenv("NOTIFY_SOCKET", m.conn.LocalAddr().String())
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	c := activator(t, "serve", "-l", addr, "--fdname=http", "-E", "NOTIFY_SOCKET")
	got, err := post(newTransport(t), addr)
	if want := fmt.Sprint(c.Process.Pid); err != nil || got != want {
		t.Errorf("got %q, %v; the process that systemd became is %s", got, err, want)
	}
	c.Process.Signal(syscall.SIGTERM)
	if rest := c.rest(t); rest != "" || !c.ProcessState.Success() {
		t.Errorf("%v: %s", c.ProcessState, rest)
	}
	for got := ""; got != "STOPPING=1"; {
		got, _ = m.read(t) // newer versions of the tool say READY=1 themselves before us
	}
}

// freePort returns a TCP and UDP port that was free a moment ago, and that the kernel
// gives to nobody who asks for any: systemd's tool does not say which one it took.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 10_000 + rand.IntN(20_000)
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
