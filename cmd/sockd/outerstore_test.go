package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A storeManager is the manager that has started sockd, with a descriptor store.
type storeManager struct {
	t      *testing.T
	fd     int
	path   string
	stored map[string]int
}

func newStoreManager(t *testing.T) *storeManager {
	t.Helper()
	m := &storeManager{t: t, path: filepath.Join(t.TempDir(), "notify"), stored: map[string]int{}}
	var err error
	if m.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(m.fd, &unix.SockaddrUnix{Name: m.path}); err != nil {
		t.Fatal(err)
	}
	unix.SetsockoptTimeval(m.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience / time.Second)})
	t.Cleanup(func() {
		unix.Close(m.fd)
		for _, fd := range m.stored {
			unix.Close(fd)
		}
	})
	return m
}

// until takes messages until one has that line.
func (m *storeManager) until(want string) {
	m.t.Helper()
	text, oob := make([]byte, 4096), make([]byte, 4096)
	for {
		n, oobn, _, _, err := unix.Recvmsg(m.fd, text, oob, unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			m.t.Fatalf("no message with %s: %v", want, err)
		}
		lines := strings.Split(string(text[:n]), "\n")
		var name string
		for _, l := range lines {
			if after, ok := strings.CutPrefix(l, "FDNAME="); ok {
				name = after
			}
		}
		if slices.Contains(lines, "FDSTORE=1") {
			messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
			if len(messages) != 1 {
				m.t.Fatalf("FDSTORE=1 with %d control messages", len(messages))
			}
			fds, err := unix.ParseUnixRights(&messages[0])
			if err != nil || len(fds) != 1 {
				m.t.Fatal(fds, err)
			}
			if old, ok := m.stored[name]; ok {
				unix.Close(old)
			}
			m.stored[name] = fds[0]
		}
		if slices.Contains(lines, "FDSTOREREMOVE=1") {
			unix.Close(m.stored[name])
			delete(m.stored, name)
		}
		if slices.Contains(lines, want) {
			return
		}
	}
}

// start starts sockd with what is stored, as a manager does after it was killed.
func (m *storeManager) start(dir, file string) *running {
	cmd := command(m.t, dir, "run", dir)
	script := fmt.Sprintf("export LISTEN_PID=$$; exec %s run %s", file, dir)
	if len(m.stored) == 0 {
		script = fmt.Sprintf("exec %s run %s", file, dir)
	}
	sh := exec.Command("sh", "-c", script)
	sh.Dir, sh.Env = cmd.Dir, append(cmd.Env, "NOTIFY_SOCKET="+m.path, "FDSTORE=100")
	var names []string
	for name, fd := range m.stored {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			m.t.Fatal(err)
		}
		f := os.NewFile(uintptr(dup), name)
		defer f.Close()
		sh.ExtraFiles = append(sh.ExtraFiles, f)
		names = append(names, name)
	}
	if len(names) > 0 {
		sh.Env = append(sh.Env, fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	return begin(m.t, sh)
}

// With a store outside, sockets outlive the keeper and all services together, and
// also the runtime folder.
func TestOuterStoreKeepsSockets(t *testing.T) {
	file := variant(t, "v1.0.0", false)
	for _, folder := range []string{"stays", "goes"} {
		dir := t.TempDir()
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		port := freePort(t)
		role := fmt.Sprintf("[service]\nexec = [%q]\nenvironment = { TEST_UPGRADE_ROLE = \"only\", TEST_PLACE = %q }\nready = \"notify\"\n", exe, filepath.Join(dir, "web"))
		listen := fmt.Sprintf("[socket.s]\nlisten = \"tcp://%s\"\nper_instance = true\n", port)
		write(t, dir, "web.toml", role+"instances = 3\n"+listen)
		m := newStoreManager(t)
		r := m.start(dir, file)
		m.until("READY=1")
		if len(m.stored) != 3 {
			t.Fatalf("stored: %v", m.stored)
		}
		sockets, _, _ := facts(t, dir)
		r.signal(syscall.SIGKILL)
		<-r.ended
		if folder == "goes" {
			os.RemoveAll(filepath.Join(dir, "run"))
		}
		r = m.start(dir, file)
		m.until("READY=1")
		now, _, _ := facts(t, dir)
		if folder == "goes" { // which is which is not on record any more, but the three are the same
			for _, s := range [][]string{sockets, now} {
				for i := range s {
					_, s[i], _ = strings.Cut(s[i], "inode")
				}
				slices.Sort(s)
			}
		}
		if !slices.Equal(sockets, now) {
			t.Errorf("the folder %s: sockets\n%q\nhave become\n%q\n%q", folder, sockets, now, drain(r.lines))
		}
		r.signal(syscall.SIGTERM)
		if code := r.wait(); code != 0 {
			t.Errorf("ended with %d", code)
		}
		for len(m.stored) > 0 {
			m.until("FDSTOREREMOVE=1")
		}
	}
}
