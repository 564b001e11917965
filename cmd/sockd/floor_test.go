package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// compiled are the programs of testdata/floor, static, made once.
var compiled = sync.OnceValues(func() (string, error) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "floor")
	if err != nil {
		return "", err
	}
	for _, name := range []string{"floor", "service"} {
		out, err := exec.Command(gcc, "-O2", "-static", "-o", filepath.Join(dir, name), "testdata/floor/"+name+".c").CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%w\n%s", err, out)
		}
	}
	return dir, nil
})

func floorPrograms(b *testing.B) (floor, service string) {
	b.Helper()
	dir, err := compiled()
	if err != nil {
		b.Skip("the C programs cannot be made: ", err)
	}
	return filepath.Join(dir, "floor"), filepath.Join(dir, "service")
}

// preparedCgroups makes n cgroups below ours, where sockd makes its own, and returns
// their folder; "-" if that is not allowed, and then sockd does without too.
func preparedCgroups(b *testing.B, n int) string {
	b.Helper()
	mounts, _ := os.ReadFile("/proc/self/mounts")
	own, _ := os.ReadFile("/proc/self/cgroup")
	path := ""
	for line := range strings.Lines(string(own)) {
		if rest, ok := strings.CutPrefix(line, "0::"); ok {
			path = strings.TrimSpace(rest)
		}
	}
	for line := range strings.Lines(string(mounts)) {
		words := strings.Fields(line)
		if words[2] != "cgroup2" {
			continue
		}
		dir := filepath.Join(words[1], path, fmt.Sprintf("floor-%d-%s", os.Getpid(), strings.ReplaceAll(b.Name(), "/", "-")))
		if os.Mkdir(dir, 0o755) != nil {
			return "-"
		}
		b.Cleanup(func() { unix.Rmdir(dir) })
		for i := range n {
			leaf := filepath.Join(dir, strconv.Itoa(i))
			if err := os.Mkdir(leaf, 0o755); err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() {
				os.WriteFile(filepath.Join(leaf, "cgroup.kill"), []byte("1"), 0)
				for late := time.Now().Add(patience); unix.Rmdir(leaf) == unix.EBUSY && time.Now().Before(late); {
					<-time.After(time.Millisecond)
				}
			})
		}
		return dir
	}
	return "-"
}

// startFloor runs the floor and returns where its sockets are.
func startFloor(b *testing.B, mode string, n int, cgroups, env string, service ...string) []unix.Sockaddr {
	b.Helper()
	floor, program := floorPrograms(b)
	cmd := exec.Command(floor, append([]string{mode, strconv.Itoa(n), cgroups, program}, service...)...)
	cmd.Env = []string{env}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	var at []unix.Sockaddr
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "up"; {
		at = append(at, onPort(lines.Text()))
	}
	if mode == "demand" && len(at) != n {
		b.Fatalf("the floor has %d of %d sockets", len(at), n)
	}
	return at
}

func onPort(port string) unix.Sockaddr {
	n, _ := strconv.Atoi(port)
	return &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: n}
}

// startUnits runs sockd over n units u0 … that differ in their port only, and
// returns where their sockets are. In text PORT stands for the port.
func startUnits(b *testing.B, n int, text string, args ...string) (r *benched, at []unix.Sockaddr) {
	b.Helper()
	dir := b.TempDir()
	units := filepath.Join(dir, "units")
	os.Mkdir(units, 0o755)
	var held []net.Listener // all at once, so that no port is given twice
	for i := range n {
		port := ""
		if strings.Contains(text, "PORT") {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			held = append(held, ln)
			_, port, _ = net.SplitHostPort(ln.Addr().String())
			at = append(at, onPort(port))
		}
		if err := os.WriteFile(filepath.Join(units, fmt.Sprintf("u%d.toml", i)), []byte(strings.ReplaceAll(text, "PORT", port)), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for _, ln := range held {
		ln.Close()
	}
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe, append([]string{"run", units}, args...)...)
	cmd.Env = append(os.Environ(), "TEST_SOCKD=1", "SOCKD_RUNTIME_DIR="+filepath.Join(dir, "run"), "NO_COLOR=1")
	r = &benched{cmd: cmd, dir: dir, began: time.Now()}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		stuck := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		cmd.Wait()
		stuck.Stop()
		if b.Failed() {
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			b.Logf("log:\n%s", text[max(0, len(text)-4000):])
		}
	})
	return r, at
}

// A benched is a sockd that is measured.
type benched struct {
	cmd   *exec.Cmd
	dir   string
	began time.Time
}

// up waits until the control socket answers, which is when all sockets are bound.
func (r *benched) up(b *testing.B) {
	b.Helper()
	for late := time.Now().Add(patience); ; {
		c, err := net.Dial("unix", filepath.Join(r.dir, "run", "control.sock"))
		if err == nil {
			fmt.Fprint(c, "GET /readyz HTTP/1.0\r\n\r\n")
			line, _ := bufio.NewReader(c).ReadString('\n')
			c.Close()
			if strings.Contains(line, " 200 ") {
				return
			}
		}
		if time.Now().After(late) {
			b.Fatal("sockd is not up")
		}
		<-time.After(time.Millisecond)
	}
}

// firstLine connects, and reads what a service says; 0 if it ended instead.
func firstLine(b *testing.B, at unix.Sockaddr) (pid int) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, at); err != nil {
		b.Fatal(err)
	}
	var text [16]byte
	n, err := unix.Read(fd, text[:])
	if err != nil || n < 2 {
		return 0
	}
	pid, _ = strconv.Atoi(string(text[:n-1]))
	return pid
}

// A timing is what was measured of one side.
type timing []time.Duration

func (t timing) at(part float64) time.Duration {
	slices.Sort(t)
	return t[min(int(part*float64(len(t))), len(t)-1)]
}

// compare reports ours beside the floor's.
func compare(b *testing.B, ours, floor timing) {
	b.ReportMetric(0, "ns/op")
	for _, p := range []struct {
		name string
		part float64
	}{{"p50", 0.5}, {"p90", 0.9}} {
		b.ReportMetric(float64(ours.at(p.part).Nanoseconds())/1000, p.name+"-µs")
		b.ReportMetric(float64(floor.at(p.part).Nanoseconds())/1000, "floor-"+p.name+"-µs")
		b.ReportMetric(float64(ours.at(p.part))/float64(floor.at(p.part)), p.name+"-ratio")
	}
}
