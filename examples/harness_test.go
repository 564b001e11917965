// Package examples runs every example as its README says: real processes, the commands
// as they are printed there, with nothing changed but the ports.
package examples

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait of a test. It is never waited out when all is well.
const patience = 60 * time.Second

// built makes sockd and the example programs once, and returns their folder.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sockd-examples-")
	if err != nil {
		return "", err
	}
	remove = dir
	build := exec.Command("go", "build", "-o", dir+"/", "./cmd/sockd", "./examples/...")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, nil
})

var remove string // what built made; "" if no test asked for it

// binaries is built for a test.
func binaries(t *testing.T) string {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestMain(m *testing.M) {
	if len(os.TempDir()) > 20 { // a Unix socket's path may have 107 bytes, and tests have long names
		os.Setenv("TMPDIR", "/tmp")
	}
	code := m.Run()
	os.RemoveAll(remove)
	os.Exit(code)
}

// A place is a folder that looks like the repository to an example: bin/ with the
// programs and examples/NAME/ with its units and its README. Each example has its own,
// so that what its processes leave behind can be told from everybody else's.
type place struct {
	dir   string
	name  string
	ports *strings.Replacer // from the example's ports to free ones
}

func newPlace(t *testing.T, name string) *place {
	t.Helper()
	// A short path: the control socket's must fit into 107 bytes.
	dir, err := os.MkdirTemp("", "sockd-example-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &place{dir: dir, name: name}
	p.link(t)
	p.choosePorts(t)
	to := filepath.Join(dir, "examples", name)
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(name, "*.*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(file)), []byte(p.ports.Replace(string(text))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// link puts the programs into bin/ under names of this place's own.
func (p *place) link(t *testing.T) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(p.dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := binaries(t)
	programs, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range programs {
		if err := os.Link(filepath.Join(dir, program.Name()), filepath.Join(p.dir, "bin", program.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// ports are what examples may use: 8080 to 8099.
var ports = regexp.MustCompile(`\b80[89]\d\b`)

// choosePorts finds a free port for each that the example's units name.
func (p *place) choosePorts(t *testing.T) {
	t.Helper()
	unitFiles, err := filepath.Glob(filepath.Join(p.name, "*.toml"))
	if err != nil || len(unitFiles) == 0 {
		t.Fatalf("%s has no unit file: %v", p.name, err)
	}
	var pairs []string
	seen := map[string]bool{}
	for _, file := range unitFiles {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, port := range ports.FindAllString(string(text), -1) {
			if !seen[port] {
				seen[port] = true
				pairs = append(pairs, port, freePort(t))
			}
		}
	}
	p.ports = strings.NewReplacer(pairs...)
}

// freePort returns a port that was free a moment ago, for TCP and UDP, and that the
// kernel gives to nobody who asks for any.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp4", fmt.Sprint("0.0.0.0:", 10_000+rand.IntN(20_000)))
		if err != nil {
			continue
		}
		c, err := net.ListenPacket("udp4", l.Addr().String())
		l.Close()
		if err == nil {
			c.Close()
			_, port, _ := net.SplitHostPort(l.Addr().String())
			return port
		}
	}
	t.Fatal("no port is free for TCP and UDP")
	return ""
}

// address is where the example's port is in this place.
func (p *place) address(port string) string { return "127.0.0.1:" + p.ports.Replace(port) }

// command is a program of bin/ that runs in this place.
func (p *place) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.dir, args[0]), args[1:]...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "SOCKD_RUNTIME_DIR="+filepath.Join(p.dir, "run"))
	return cmd
}

// output is a buffer that processes write and tests read.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// A process is one that the test started and will end.
type process struct {
	*exec.Cmd
	out   *output
	ended bool
}

func begin(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{Cmd: cmd, out: &output{}}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !p.ended {
			p.end()
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", cmd.Args, p.out)
		}
	})
	return p
}

// stop sends SIGTERM and wants exit status 0.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.end(); err != nil {
		t.Errorf("%s: at SIGTERM: %v", p.Args, err)
	}
}

// end sends SIGTERM, SIGKILL if that is not enough, and waits.
func (p *process) end() error {
	p.ended = true
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	watch := time.AfterFunc(patience, func() { p.Process.Kill() })
	defer watch.Stop()
	return p.Wait()
}

// run starts sockd with the example's units (files below its folder; none: the folder)
// and waits until it has told its own manager, this test, that it is ready.
func (p *place) run(t *testing.T, files ...string) *process {
	t.Helper()
	args := []string{"bin/sockd", "run"}
	for _, file := range files {
		args = append(args, filepath.Join("examples", p.name, file))
	}
	if len(files) == 0 {
		args = append(args, filepath.Join("examples", p.name))
	}
	cmd := p.command(args...)
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(p.dir, "notify")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { manager.Close() })
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+manager.LocalAddr().String())
	sockd := begin(t, cmd)
	manager.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 4096)
	for {
		n, _, err := manager.ReadFrom(b)
		if err != nil {
			t.Fatalf("sockd does not become ready: %v", err)
		}
		if bytes.Contains(b[:n], []byte("READY=1")) {
			return sockd
		}
	}
}

// finish stops sockd and wants nothing left: no process of this place, no socket file,
// no open port.
func (p *place) finish(t *testing.T, sockd *process) {
	t.Helper()
	sockd.stop(t)
	links, err := filepath.Glob("/proc/[0-9]*/[ec][xw][ed]") // exe and cwd
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, p.dir) {
			t.Errorf("left: %s is %s", link, to)
		}
	}
	filepath.WalkDir(filepath.Join(p.dir, "examples"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type() == os.ModeSocket {
			t.Errorf("left: %s", path)
		}
		return err
	})
}

// shell runs a line of the README in bash and returns what it prints.
func (p *place) shell(t *testing.T, line string) string {
	t.Helper()
	program, _, _ := strings.Cut(line, " ")
	for _, need := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(need); err != nil && (need == "bash" || strings.Contains(line, need)) {
			t.Skipf("%s is not installed: the README's %s was not run", need, program)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", line)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "TIMEFORMAT=%R", "SOCKD_RUNTIME_DIR="+filepath.Join(p.dir, "run"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", line, err, out, stderr.Bytes())
	}
	return string(out)
}

// eventually repeats f until it is satisfied: for what comes by chance, as the choice
// among waiting processes does, and for what no news announces.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	err := errors.New("not tried")
	for err != nil && time.Now().Before(deadline) && !t.Failed() {
		err = f()
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
