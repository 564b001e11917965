package supervisor

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

var holdFor = flag.Duration("hold", 3*time.Second, "how long clients run against a service that exits at once")

func init() {
	// Supervises TEST_DIR in a process of its own; "cpu" on its input asks for the
	// processor time it has used, "reload" reads the units again; it ends with its input.
	roles["supervise"] = func() {
		load := func() (*units.Set, error) { return units.Load(os.Getenv("TEST_DIR")) }
		s := New(Config{Load: load, Reap: true, RuntimeDir: os.Getenv("TEST_RUN"), Output: io.Discard,
			Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		select {
		case <-s.started:
			st, _ := s.Unit("web")
			fmt.Println(st.Sockets[0].Address)
		case err := <-ended:
			fmt.Println("error", err)
			return
		}
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			switch in.Text() {
			case "cpu":
				var u unix.Rusage
				unix.Getrusage(unix.RUSAGE_SELF, &u)
				st, _ := s.Unit("web")
				fmt.Println(u.Utime.Nano()+u.Stime.Nano(), st.Instances[0].Starts)
			case "reload":
				fmt.Println("reloaded", s.Reload(ctx))
			}
		}
		cancel()
		<-ended
	}
}

// N2, and design.md section 10: systemd closes such a port for good.
func TestServiceThatExitsAtOnceKeepsItsPort(t *testing.T) {
	for _, code := range []int{0, 1} {
		t.Run(fmt.Sprint("exit ", code), func(t *testing.T) {
			f := prepare(t)
			f.write("web", fmt.Sprintf("[service]\nexec = [\"/bin/sh\", \"-c\", \"exit %d\"]\nrestart_delay_max = \"2s\"\n[socket.http]\nlisten = \"tcp://127.0.0.1:0\"\n", code))
			exe, _ := os.Executable()
			cmd := exec.Command(exe)
			cmd.Env = append(os.Environ(), "TEST_ROLE=supervise", "TEST_DIR="+f.dir, "TEST_RUN="+filepath.Join(f.dir, "run"))
			cmd.Stderr = os.Stderr
			out, _ := cmd.StdoutPipe()
			in, _ := cmd.StdinPipe()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer in.Close()
			lines := bufio.NewScanner(out)
			say := func(text string) string {
				fmt.Fprintln(in, text)
				lines.Scan()
				return lines.Text()
			}
			lines.Scan()
			address := lines.Text()
			used := func() (cpu time.Duration, starts int) {
				fmt.Sscan(say("cpu"), &cpu, &starts)
				return cpu, starts
			}
			before, _ := used()
			began := time.Now()
			var clients sync.WaitGroup
			var refused, served, failed atomic.Int64
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			count := 0
			for time.Since(began) < *holdFor {
				<-tick.C
				count++
				clients.Go(func() {
					_, err := ask("tcp", address)
					var timeout net.Error
					switch {
					case errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET):
						refused.Add(1)
					case errors.As(err, &timeout) && timeout.Timeout(): // it has waited for as long as ask does
					case err != nil:
						failed.Add(1)
					case err == nil:
						served.Add(1)
					}
				})
			}
			after, starts := used()
			for starts < 2 && time.Since(began) < patience { // a slow machine
				<-tick.C
				after, starts = used()
			}
			took := time.Since(began)
			f.write("web", "[service]\nrole = serve\nready = \"notify\"\n[socket.http]\nlisten = \"tcp://127.0.0.1:0\"\n")
			if got := say("reload"); got != "reloaded <nil>" {
				t.Fatal(got)
			}
			if _, err := ask("tcp", address); err != nil {
				t.Errorf("after the repair: %v", err)
			}
			clients.Wait()
			share := 100 * float64(after-before) / float64(took)
			limit := 10.0 // a busy machine makes each step dearer
			if *strict {
				limit = 2
			}
			if refused.Load() > 0 || failed.Load() > 0 || share > limit || starts < 2 {
				t.Errorf("%d refused, %d failed, %.1f %% of a processor, %d starts", refused.Load(), failed.Load(), share, starts)
			}
			if *holdFor <= 20*time.Second && served.Load() != int64(count) {
				t.Errorf("%d of %d waiting clients were served", served.Load(), count)
			}
			t.Logf("promise N2: exit %d at once for %v: %d clients, %d refused, %d served after the repair; %d starts, %.2f %% of a processor",
				code, took.Round(time.Second), count, refused.Load(), served.Load(), starts, share)
		})
	}
}

func init() {
	// Switches O_NONBLOCK of its sockets on, says which descriptors it has and how
	// they were, and waits for SIGTERM.
	roles["descriptors"] = func() {
		// Before Go's poller or anything else has opened more: what exec left us.
		entries, _ := os.ReadDir("/proc/self/fd")
		var list []string
		for _, e := range entries {
			target, err := os.Readlink("/proc/self/fd/" + e.Name())
			if err != nil || strings.Contains(target, "anon_inode") || strings.HasPrefix(target, "/proc/") || strings.HasPrefix(target, "/sys/fs/cgroup") {
				continue // Go's own: its poller, its processor quota, and the folder being read
			}
			list = append(list, e.Name())
		}
		modes := ""
		for fd := 3; fd < 3+number("LISTEN_FDS"); fd++ {
			flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			modes += fmt.Sprint(flags & unix.O_NONBLOCK / unix.O_NONBLOCK)
		}
		// Of two that start together, the first to set one has seen them all as they were.
		for fd := 3; fd < 3+number("LISTEN_FDS"); fd++ {
			unix.SetNonblock(fd, os.Getenv("TEST_NONBLOCK") != "off")
		}
		fmt.Printf("gen %s fds %s modes %s\n", os.Getenv("SOCKD_GENERATION"), strings.Join(list, ","), modes)
		notify("READY=1")
		waitTERM()
	}
}

const everyKind = `
[service]
role = descriptors
ready = "notify"
start = "boot"
instances = 2
[socket.tcp]
listen = ["tcp://127.0.0.1:0", "%s"]
no_delay = true
keep_alive = true
receive_buffer = "64KiB"
ip_tos = 16
[socket.own]
listen = "tcp://127.0.0.1:0"
per_instance = true
defer_accept = "3s"
[socket.udp]
listen = "udp://127.0.0.1:0"
send_buffer = "64KiB"
[socket.unix]
listen = ["unix://./a.sock", "unixgram://./b.sock", "unixpacket://./c.sock", "unix://@sockd-test-%d"]
[socket.nonblocking]
listen = "tcp://127.0.0.1:0"
non_blocking = true
`

func (f *fixture) options(unit string) (all []string) {
	f.t.Helper()
	for _, k := range f.unit(unit).Sockets {
		o, err := sys.OptionsOf(k.fd)
		if err != nil {
			f.t.Fatal(err)
		}
		all = append(all, k.Held+": "+strings.Join(o, " "))
	}
	return all
}

func TestOptionsAreTheSameBeforeAndAfterEachSpawn(t *testing.T) {
	second := "tcp6://[::1]:0"
	if ln, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		ln.Close()
	} else {
		second = "tcp4://127.0.0.1:0" // no IPv6 here
	}
	f := newFixture(t, "web", fmt.Sprintf(everyKind, second, os.Getpid()))
	compared := 0
	withoutMode := func(all []string) []string {
		all = slices.Clone(all)
		for i := range all {
			all[i] = strings.NewReplacer("O_NONBLOCK=1", "", "O_NONBLOCK=0", "").Replace(all[i])
		}
		return all
	}
	f.do("start", "web", Done)
	first := f.options("web")
	for range 5 {
		f.do("stop", "web", Done)
		f.do("start", "web", Done)
		now := f.options("web")
		compared += len(now)
		if !slices.Equal(withoutMode(now), withoutMode(first)) {
			t.Fatalf("options were\n%s\nand are\n%s", strings.Join(first, "\n"), strings.Join(now, "\n"))
		}
	}
	// Each run left the flag switched on. The first of a round finds it reset; the
	// second must leave alone what the first has: all but its own socket.
	f.stop()
	rounds := 0
	for line := range strings.Lines(f.out.String()) {
		_, text, _ := strings.Cut(strings.TrimSpace(line), "| ")
		var gen int
		var fds, modes string
		if n, _ := fmt.Sscanf(text, "gen %d fds %s modes %s", &gen, &fds, &modes); n != 3 {
			t.Errorf("it said %q", text)
			continue
		}
		if want := "0,1,2,3,4,5,6,7,8,9,10,11"; sortedNumbers(fds) != want {
			t.Errorf("generation %d has descriptors %s, want %s", gen, fds, want)
		}
		if modes[2] != '0' || modes[8] != '1' {
			t.Errorf("generation %d: modes %s; its own socket must be blocking, the last one not", gen, modes)
		}
		if modes == "000000001" {
			rounds++
		}
	}
	if rounds < 6 { // one in each round at least: nobody else was there
		t.Errorf("%d runs found all sockets as the unit file says, want 6", rounds)
	}
	t.Logf("promise N1: %d readings of socket options before and after spawns, all the same; 12 runs with exactly their descriptors", compared)
}

// sortedNumbers sorts 0,10,2 as 0,2,10.
func sortedNumbers(list string) string {
	words := strings.Split(list, ",")
	slices.SortFunc(words, func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) })
	return strings.Join(words, ",")
}

func TestBlockingModeIsLeftAloneWhileAnotherRunHasTheSocket(t *testing.T) {
	f := newFixture(t, "web", "[service]\nrole = descriptors\nready = \"notify\"\nstart = \"boot\"\n[socket.x]\nlisten = \"tcp://127.0.0.1:0\"\n")
	f.do("start", "web", Done)
	f.do("restart", "web", Done) // two runs for a moment
	f.do("stop", "web", Done)
	f.do("start", "web", Done)
	f.stop()
	// Each has a pipe of its own: their lines may come in any order.
	lines := strings.Split(strings.TrimSpace(f.out.String()), "\n")
	for i, want := range []string{"modes 0", "modes 1", "modes 0"} {
		of := fmt.Sprintf("gen %d ", i+1)
		at := slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, of) })
		if at < 0 || !strings.HasSuffix(lines[at], want) {
			t.Errorf("run %d: want %s in %q", i+1, want, lines)
		}
	}
}

func init() {
	// Shuts its listener down, which shuts everybody's, and ends.
	roles["shutdown"] = func() {
		unix.Shutdown(3, unix.SHUT_RDWR)
	}
}

func TestListenerThatAServiceShutsDownListensAgain(t *testing.T) {
	// With a port that was asked for: one that the kernel chose it takes back.
	host := netip.AddrFrom4(scaleHost(os.Getpid())).String()
	f := newFixture(t, "web", "[service]\nrole = shutdown\n[socket.x]\nlisten = \"tcp://"+host+":19999\"\n")
	inode := f.unit("web").Sockets[0].Inode
	c, err := net.Dial("tcp", f.address("web", "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f.awaitState("web", 1, "exited")
	f.awaitState("web", 1, "idle")
	f.write("web", strings.NewReplacer("[socket.http]", "[socket.x]", "127.0.0.1:0", host+":19999").Replace(onDemand))
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := ask("tcp", f.address("web", "x")); err != nil {
		t.Fatal(err)
	}
	if got := f.unit("web").Sockets[0].Inode; got != inode {
		t.Errorf("socket %d has become %d", inode, got)
	}
	if !strings.Contains(f.log.String(), "listening again") || !strings.Contains(f.log.String(), "web@1.1 (pid ") {
		t.Error("the log does not say who did it")
	}
}
