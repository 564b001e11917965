package activation

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// option reads a socket option of l, a listener or a packet conn.
func option(t *testing.T, l any, opt int) int {
	t.Helper()
	raw, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var value int
	var got error
	if err := raw.Control(func(fd uintptr) { value, got = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, opt) }); err != nil || got != nil {
		t.Fatal(err, got)
	}
	return value
}

func TestListenByItself(t *testing.T) {
	for _, network := range []string{"tcp", "tcp4"} {
		l, err := Listen(t.Context(), "http", network, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if option(t, l, unix.SO_REUSEADDR) != 1 || option(t, l, unix.SO_REUSEPORT) != 1 {
			t.Errorf("%s: reuse options are not set", network)
		}
		second, err := Listen(t.Context(), "http", network, l.Addr().String())
		if err != nil {
			t.Errorf("%s: a second process of ours cannot join: %v", network, err)
			continue
		}
		second.Close()
	}
}

func TestListenPacketByItself(t *testing.T) {
	c, err := ListenPacket(t.Context(), "dns", "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if option(t, c, unix.SO_REUSEPORT) != 1 {
		t.Error("SO_REUSEPORT is not set")
	}
	if option(t, c, unix.SO_REUSEADDR) != 0 {
		t.Error("SO_REUSEADDR is set: anybody may take our datagrams")
	}
	second, err := ListenPacket(t.Context(), "dns", "udp", c.LocalAddr().String())
	if err != nil {
		t.Fatalf("a second process of ours cannot join: %v", err)
	}
	second.Close()
}

// A path that we made is ours to remove, as in package net.
func TestListenUnixByItself(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api")
	l, err := Listen(t.Context(), "api", "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if option(t, l, unix.SO_REUSEPORT) != 0 {
		t.Error("SO_REUSEPORT is set on a Unix socket")
	}
	l.Close()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("stat %s: %v", path, err)
	}
}

func TestListenErrors(t *testing.T) {
	if l, err := Listen(t.Context(), "x", "udp", "127.0.0.1:0"); err == nil {
		l.Close()
		t.Error("udp is no stream")
	}
	if c, err := ListenPacket(t.Context(), "x", "tcp", "127.0.0.1:0"); err == nil {
		c.Close()
		t.Error("tcp is no datagrams")
	}
}

func TestInstance(t *testing.T) {
	for _, tt := range []struct {
		name, n, of   string
		wantN, wantOf int
	}{
		{"the second of four", "2", "4", 2, 4},
		{"not started by sockd", "", "", 1, 1},
		{"half of it", "2", "", 1, 1},
		{"more than there are", "5", "4", 1, 1},
		{"none", "0", "4", 1, 1},
		{"no number", "a", "4", 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("SOCKD_INSTANCE", tt.n)
			t.Setenv("SOCKD_INSTANCES", tt.of)
			if n, of := Instance(); n != tt.wantN || of != tt.wantOf {
				t.Errorf("got %d of %d, want %d of %d", n, of, tt.wantN, tt.wantOf)
			}
		})
	}
}

// A port that cannot be shared says what sharing needs.
func TestListenOnAPortThatIsNotShared(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Listen(t.Context(), "web", "tcp", l.Addr().String())
	if want := fmt.Sprintf("of one user; this process is uid %d", os.Geteuid()); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want one that says %q", err, want)
	}
}
