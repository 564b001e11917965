package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sockd/sockd/activation"
	"github.com/sockd/sockd/supervisor"
	"golang.org/x/sys/unix"
)

func init() {
	if os.Getenv("TEST_KEEPSAKE") != "" && os.Getenv("SOCKD_UNIT") != "" {
		if err := keepsake(); err != nil {
			fmt.Fprintln(os.Stderr, "keepsake:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// keepsake is a service that keeps a file without a name and a connection in sockd's
// store. Each of its processes adds its generation to the file and sends the file's
// content over the connection.
func keepsake() error {
	names, err := activation.Names()
	if err != nil {
		return err
	}
	fmt.Println(strings.Join(names, ","))
	memory, err := kept("memory", func() (*os.File, error) {
		fd, err := unix.MemfdCreate("memory", unix.MFD_CLOEXEC)
		return os.NewFile(uintptr(fd), "memory"), err
	})
	if err != nil {
		return err
	}
	conn, err := kept("conn", func() (*os.File, error) {
		c, err := net.Dial("tcp", os.Getenv("TEST_KEEPSAKE"))
		if err != nil {
			return nil, err
		}
		return c.(*net.TCPConn).File()
	})
	if err != nil {
		return err
	}
	fmt.Fprint(memory, " ", os.Getenv("SOCKD_GENERATION")) // the offset is in the open file, so it has been kept too
	content := make([]byte, 1<<10)
	n, err := memory.ReadAt(content, 0)
	if err != io.EOF {
		return err
	}
	if _, err := fmt.Fprintf(conn, "%d:%s\n", os.Getpid(), content[:n]); err != nil {
		return err
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	if err := activation.Ready(); err != nil {
		return err
	}
	<-term
	return nil
}

// kept is what was stored under name, or what make makes, stored from now on.
func kept(name string, make func() (*os.File, error)) (*os.File, error) {
	files, err := activation.Stored(name)
	if err != nil {
		return nil, err
	}
	if len(files) > 0 {
		return files[0], nil
	}
	f, err := make()
	if err != nil {
		return nil, err
	}
	return f, activation.Store(name, f)
}

func TestStoreOutlivesServiceAndSupervisor(t *testing.T) {
	far, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, "keep.toml", fmt.Sprintf(`
[service]
exec = [%q]
environment = { TEST_KEEPSAKE = %q }
start = "boot"
ready = "notify"
restart = "always"
restart_delay = "10ms"
fd_store_max = 2
[socket.s]
listen = "unix://./s.sock"
`, self, far.Addr().String()))
	r := start(t, dir, "run", "keep.toml")
	c, err := far.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	said := bufio.NewReader(c)
	pid, gen, supervisors := 0, 0, 0
	hear := func(what string) { // the next process has got the connection and the file, complete
		t.Helper()
		gen++
		c.SetReadDeadline(time.Now().Add(patience))
		line, err := said.ReadString('\n')
		first, content, _ := strings.Cut(line, ":")
		pid, _ = strconv.Atoi(first)
		want := "\n"
		for g := gen; g > 0; g-- {
			want = fmt.Sprint(" ", g) + want
		}
		if err != nil || pid == 0 || content != want {
			t.Fatalf("%s: heard %q, %v, want %q", what, line, err, want)
		}
		r.line(fmt.Sprintf(`keep@1 ready.*\(generation %d,`, gen))
	}
	hear("first start")
	for range 3 {
		syscall.Kill(pid, syscall.SIGKILL)
		hear("the service was killed")
		if stdout, stderr, code := sockd(t, dir, "restart", "keep"); code != 0 {
			t.Fatalf("restart: %d %q %q", code, stdout, stderr)
		}
		hear("replaced")
		syscall.Kill(supervisorUnder(t, r.cmd.Process.Pid), syscall.SIGKILL)
		supervisors++
		r.line("supervisor ended")
		syscall.Kill(pid, syscall.SIGKILL)
		hear("supervisor and service were killed")
	}
	stdout, _, _ := sockd(t, dir, "status", "-o", "json")
	var all []supervisor.UnitStatus
	if err := json.Unmarshal([]byte(stdout), &all); err != nil || strings.Join(all[0].Instances[0].Stored, " ") != "memory conn" {
		t.Errorf("status: %v\n%s", err, stdout)
	}
	if stdout, _, _ := sockd(t, dir, "status"); !regexp.MustCompile(`(?m)^keep@1 +2 +memory, conn$`).MatchString(stdout) {
		t.Errorf("status:\n%s", stdout)
	}
	if _, stderr, code := sockd(t, dir, "stop", "keep"); code != 0 {
		t.Errorf("stop: %d %s", code, stderr)
	}
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := said.ReadByte(); err != io.EOF {
		t.Errorf("stopped, and the connection is open: %v", err)
	}
	r.signal(syscall.SIGTERM)
	r.wait()
	if n := strings.Count(r.stdout.String(), "keep@1 | s,memory,conn\n"); n != gen-1 {
		t.Errorf("%d of %d processes were given socket, memory, connection, in this order:\n%s", n, gen-1, r.stdout.String())
	}
	t.Logf("promise N1: %d processes in a row had the same memory and connection, over kills of the service, replacements, and %d kills of the supervisor", gen, supervisors)
}
