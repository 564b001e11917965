package supervisor

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

// The sockets of the tests of scale have ports below those that the kernel hands
// out, on an address of the loopback net that no other run of this test uses.
const scalePort = 20000

func scaleHost(pid int) [4]byte { return [4]byte{127, byte(64 + pid>>16), byte(pid >> 8), byte(pid)} }

// Times are the machine's as much as ours: on a busy one they say nothing.
var strict = flag.Bool("strict", false, "fail when a time goal is missed, not only log it")

func init() {
	// Measures a bare loop of socket, bind, listen; then supervises the units of
	// TEST_DIR, says how long it took to be ready and what that cost, and goes on
	// until its input ends.
	roles["scale"] = func() {
		bare := bareLoop(number("TEST_SOCKETS"))
		began := time.Now()
		set, err := units.Load(os.Getenv("TEST_DIR"))
		if err != nil {
			fmt.Println("error", err)
			return
		}
		loaded, before := time.Now(), processorTime()
		s := New(Config{Units: set, RuntimeDir: os.Getenv("TEST_RUN"), Output: io.Discard, Log: slog.New(slog.DiscardHandler), Reap: true})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		select {
		case <-s.started:
		case err := <-ended:
			fmt.Println("error", err)
			return
		}
		ready, cost := time.Since(loaded), processorTime()-before
		fmt.Println("scale", bare.Microseconds(), loaded.Sub(began).Microseconds(), ready.Microseconds(), cost.Microseconds())
		io.Copy(io.Discard, os.Stdin)
		cancel()
		fmt.Println("ended", <-ended)
	}
}

// processorTime is what this process has used: a busy machine does not change it.
func processorTime() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// bareLoop is how long n times socket, bind and listen take.
func bareLoop(n int) time.Duration {
	fds := make([]int, 0, n)
	began := time.Now()
	for i := range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrInet4{Addr: scaleHost(os.Getppid()), Port: scalePort + i})
		}
		if err == nil {
			err = unix.Listen(fd, 4096)
		}
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fds = append(fds, fd)
	}
	took := time.Since(began)
	for _, fd := range fds {
		unix.Close(fd)
	}
	return took
}

// A scaled is a supervisor in a process of its own, and what it said of itself.
type scaled struct {
	cmd               *exec.Cmd
	in                io.Closer
	lines             *bufio.Scanner
	bare, load, ready time.Duration
	cost              time.Duration // of becoming ready, in processor time
}

func startScaled(t *testing.T, dir string, sockets int) *scaled {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &scaled{cmd: exec.Command(exe)}
	s.cmd.Env = append(os.Environ(), "TEST_ROLE=scale", "TEST_DIR="+dir, "TEST_RUN="+filepath.Join(t.TempDir(), "run"),
		"TEST_SOCKETS="+strconv.Itoa(sockets))
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cmd.Process.Kill(); s.cmd.Wait() })
	s.lines = bufio.NewScanner(out)
	s.lines.Scan()
	var bare, load, ready, cost int
	if _, err := fmt.Sscanf(s.lines.Text(), "scale %d %d %d %d", &bare, &load, &ready, &cost); err != nil {
		t.Fatalf("%q: %v", s.lines.Text(), err)
	}
	us := func(n int) time.Duration { return time.Duration(n) * time.Microsecond }
	s.bare, s.load, s.ready, s.cost = us(bare), us(load), us(ready), us(cost)
	return s
}

// stop ends it in good order.
func (s *scaled) stop(t *testing.T) {
	t.Helper()
	s.in.Close()
	s.lines.Scan()
	if s.lines.Text() != "ended <nil>" {
		t.Errorf("it said %q at the end", s.lines.Text())
	}
	s.cmd.Wait()
}

// idle watches the process while nothing happens: the processor time it uses, in
// ticks of 10 ms, and how often it is woken. It may take a while to come to rest.
func (s *scaled) idle(t *testing.T) (ticks, wakes int) {
	t.Helper()
	for range 60 {
		ticks, wakes = s.used(t)
		<-time.After(time.Second) // what is awaited is that nothing happens
		now, woken := s.used(t)
		if ticks, wakes = now-ticks, woken-wakes; ticks == 0 && wakes == 0 {
			break
		}
	}
	return ticks, wakes
}

func (s *scaled) used(t *testing.T) (ticks, wakes int) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", s.cmd.Process.Pid)
	text, err := os.ReadFile(proc + "stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest) // from field 3 of proc_pid_stat(5)
	user, _ := strconv.Atoi(fields[14-3])
	system, _ := strconv.Atoi(fields[15-3])
	tasks, _ := filepath.Glob(proc + "task/*/status")
	for _, task := range tasks {
		wakes += statusField(task, "voluntary_ctxt_switches:")
	}
	return user + system, wakes
}

// resident is the process's memory in KiB.
func (s *scaled) resident(t *testing.T) int {
	return statusField(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid), "VmRSS:")
}

// statusField is a number of a proc_pid_status(5).
func statusField(path, name string) int {
	text, _ := os.ReadFile(path)
	_, rest, _ := strings.Cut(string(text), "\n"+name)
	for _, word := range strings.Fields(rest) {
		n, _ := strconv.Atoi(word)
		return n
	}
	return 0
}

// fileLimit is how many files a process may open: Go raises the soft limit to it.
func fileLimit() uint64 {
	var l unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
	return l.Max
}

func writeManyUnits(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		text := fmt.Sprintf("[service]\nexec = \"/bin/true\"\n[socket.http]\nlisten = \"tcp://%s:%d\"\n", netip.AddrFrom4(scaleHost(os.Getpid())), scalePort+i)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("u%05d.toml", i)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func writeManySockets(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	var b strings.Builder
	b.WriteString("[service]\nexec = \"/bin/true\"\n[socket.many]\nlisten = [\n")
	for i := range n {
		fmt.Fprintf(&b, "\"tcp://%s:%d\",\n", netip.AddrFrom4(scaleHost(os.Getpid())), scalePort+i)
	}
	b.WriteString("]\n")
	if err := os.WriteFile(filepath.Join(dir, "many.toml"), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTenThousandSockets(t *testing.T) {
	if testing.Short() {
		t.Skip("measures time and memory, which is not for -short and the race detector")
	}
	if most := fileLimit(); most < 12000 {
		t.Skipf("needs 12,000 open files, and the limit is %d", most)
	}
	for _, c := range []struct {
		name string
		dir  string
		n    int
	}{
		{"10,000 units", writeManyUnits(t, 10000), 10000},
		{"one unit", writeManySockets(t, 9990), 9990}, // a file holds 10,000 keys and values at most
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startScaled(t, c.dir, c.n)
			spent, woken := s.idle(t)
			rss := s.resident(t)
			ratio := float64(s.ready) / float64(s.bare)
			t.Logf("%d sockets: bare loop %v, ready %v (%.1f times), reading the files %v, %d KiB resident, %d ticks and %d wake-ups while idle",
				c.n, s.bare, s.ready, ratio, s.load, rss, spent, woken)
			if most := map[bool]int{true: 60 << 10, false: 75 << 10}[*strict]; rss > most { // what the collector has returned varies
				t.Errorf("%d KiB resident, more than %d", rss, most)
			}
			if spent > 0 || woken > 5 {
				t.Errorf("%d ticks of processor time and %d wake-ups while idle", spent, woken)
			}
			if *strict && ratio > 4 {
				t.Errorf("ready after %.1f times the bare loop", ratio)
			}
			s.stop(t)
			t.Logf("promise N10: %d sockets held and watched, %d ticks used while idle, ready in %.1f times a bare loop, %d MiB", c.n, spent, ratio, rss>>10)
		})
	}
}

func TestTimeAndMemoryAreLinear(t *testing.T) {
	if testing.Short() {
		t.Skip("measures time and memory, which is not for -short and the race detector")
	}
	perUnit := map[int]time.Duration{}
	rss := map[int]int{}
	counts := []int{100, 1000}
	if fileLimit() >= 12000 {
		counts = append(counts, 10000)
	}
	for _, n := range counts {
		s := startScaled(t, writeManyUnits(t, n), n)
		perUnit[n], rss[n] = s.cost/time.Duration(n), s.resident(t)
		s.stop(t)
		t.Logf("%d units: ready in %v, %v of a processor each, %d KiB resident", n, s.ready, perUnit[n], rss[n])
	}
	most := counts[len(counts)-1]
	// Ten times slower for each unit would be quadratic; the rest is the machine's mood.
	if perUnit[most] > 5*perUnit[100] && perUnit[most] > 5*perUnit[1000] {
		t.Errorf("each of %d units takes %v, of 1,000 %v, of 100 %v", most, perUnit[most], perUnit[1000], perUnit[100])
	}
	if each := (rss[most] - rss[100]) / (most / 1000); each > 8<<10 {
		t.Errorf("1,000 units take %d KiB", each)
	}
}
