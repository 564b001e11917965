package supervisor

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Under an outer manager sockd is a service: it takes the socket it is passed and
// says how it is.
func TestUnderAnOuterManager(t *testing.T) {
	tool, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("needs systemd-socket-activate")
	}
	f := prepare(t)
	address := netip.AddrPortFrom(netip.AddrFrom4(scaleHost(os.Getpid())), 19998).String()
	f.write("web", strings.Replace(onDemand, "127.0.0.1:0", address, 1))
	notifyPath := filepath.Join(f.dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notifyPath, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	exe, _ := os.Executable()
	cmd := exec.Command(tool, "-l", address, "-E", "TEST_ROLE=supervise", "-E", "TEST_DIR="+f.dir, "-E", "TEST_RUN="+filepath.Join(f.dir, "run"),
		"-E", "NOTIFY_SOCKET="+notifyPath, exe)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notifyPath)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	waitFor(t, "the outer manager to listen", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close() // this one starts sockd
		}
		return err == nil
	})
	heard := func(want string) {
		t.Helper()
		manager.SetReadDeadline(time.Now().Add(patience))
		buf := make([]byte, 4096)
		for {
			n, err := manager.Read(buf)
			if err != nil {
				t.Fatalf("no %s: %v\n%s", want, err, out.String())
			}
			if strings.Contains("\n"+string(buf[:n]), "\n"+want) {
				return
			}
		}
	}
	heard("READY=1")
	// The address is taken, by the passed socket: had that not been taken over, sockd
	// would not have started. The service gets it and not sockd's own variables.
	a, err := ask("tcp", address)
	if err != nil || a.instance != 1 {
		t.Fatalf("%+v, %v\n%s", a, err, out.String())
	}
	in.Close()
	heard("STOPPING=1")
}
