package activation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func init() {
	roles["alone"] = func() error {
		return Serve(context.Background(), &http.Server{Addr: "127.0.0.1:0", Handler: http.NotFoundHandler()})
	}
	roles["knock"] = knock
}

// door listens as sockd does for a gate.
func door(t *testing.T) (address string, f *os.File) {
	t.Helper()
	address = fmt.Sprintf("@sockd/ready/test-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))
	l, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	f = file(t, l)
	l.Close()
	return address, f
}

// getDoor asks as sockd does.
func getDoor(address string) (int, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", address)
	}}}
	resp, err := client.Get("http://sockd/healthz")
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

func TestServeAnswersTheGate(t *testing.T) {
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	address, gate := door(t)
	for _, tt := range []struct {
		name, role string
		files      []*os.File
		names      string
		status     int
	}{
		{"beside a socket by name", "serve", []*os.File{file(t, web), gate}, "http:ready", 200},
		{"with nothing else", "alone", []*os.File{gate}, "ready", 404},
		{"beside any socket", "alone", []*os.File{file(t, web), gate}, "http:ready", 404},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newManager(t, filepath.Join(t.TempDir(), "notify"))
			c := start(t, tt.role, tt.files, "LISTEN_PID=self", fmt.Sprint("LISTEN_FDS=", len(tt.files)), "LISTEN_FDNAMES="+tt.names, m.env())
			if got, _ := m.read(t); got != "READY=1" {
				t.Fatalf("got %q", got)
			}
			if code, err := getDoor(address); err != nil || code != tt.status {
				t.Errorf("%d, %v", code, err)
			}
			c.Process.Signal(syscall.SIGTERM)
			if rest := c.rest(t); rest != "" || !c.ProcessState.Success() {
				t.Errorf("%v: %s", c.ProcessState, rest)
			}
		})
	}
}

// The gate's socket is handed out by its name only; a unit's own of that name always.
func TestGateIsNoSocketOfTheUnit(t *testing.T) {
	s := listenAll(t)
	_, gate := door(t)
	for _, tt := range []struct {
		name, ask string
		files     []*os.File
		names     string
		want      []string
	}{
		{"any name does not mean it", "listeners: listeners:ready", []*os.File{s.files[0], gate}, "web:ready", []string{"1", "1"}},
		{"alone: no sockets were given", "listeners:web listeners: listen:web listenpacket:web listeners:ready", []*os.File{gate}, "ready",
			[]string{ErrNotActivated.Error(), ErrNotActivated.Error(), "1", "1", "1"}},
		{"a unit's own", "listeners:", []*os.File{s.files[0]}, "ready", []string{"1"}},
		{"a file as any other", "files", []*os.File{s.files[0], gate}, "web:ready", []string{"2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := start(t, "ask", tt.files, "LISTEN_PID=self", fmt.Sprint("LISTEN_FDS=", len(tt.files)), "LISTEN_FDNAMES="+tt.names, "ASK="+tt.ask).rest(t)
			if want := strings.Join(tt.want, "\n") + "\n"; got != want {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
		})
	}
}

// knock asks at the gate as whoever it is, and prints what came of it.
func knock() error {
	code, err := getDoor(os.Getenv("KNOCK"))
	early := err != nil && strings.Contains(err.Error(), "server closed idle connection") // before the question was sent
	if early || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		fmt.Println("turned away")
		return nil
	}
	fmt.Println(code, err)
	return nil
}

func TestGateTurnsStrangersAway(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: to be another user")
	}
	address, gate := door(t)
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	start(t, "alone", []*os.File{gate}, "LISTEN_PID=self", "LISTEN_FDS=1", "LISTEN_FDNAMES=ready", m.env())
	if got, _ := m.read(t); got != "READY=1" {
		t.Fatalf("got %q", got)
	}
	for _, tt := range []struct {
		uid  uint32
		want string
	}{{65534, "turned away\n"}, {0, "404 <nil>\n"}} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), roleVar+"=knock", "KNOCK="+address, "GORACE=atexit_sleep_ms=0")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.uid, Gid: tt.uid, NoSetGroups: true}}
		if got := run(t, cmd).rest(t); got != tt.want {
			t.Errorf("user %d: %q, want %q", tt.uid, got, tt.want)
		}
	}
}
