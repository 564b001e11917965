package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sockd/sockd/activation"
	"github.com/sockd/sockd/supervisor"
	"golang.org/x/sys/unix"
)

// startUp is how long a service of the benchmark takes until it is ready.
const startUp = 50 * time.Millisecond

// In a service written in Go: the test binary is one when TEST_BALANCE says so.
func init() {
	role := os.Getenv("TEST_BALANCE")
	if role == "" {
		return
	}
	if err := balanceRole(role, os.Getenv("TEST_BALANCE_ADDRESS")); err != nil {
		fmt.Fprintln(os.Stderr, "balance:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// balanceRole serves "INSTANCE PID\n" on tcp or udp until SIGTERM. With an address it
// binds by itself.
func balanceRole(role, address string) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-time.After(startUp)
	answer := fmt.Sprintf("%s %d\n", os.Getenv("SOCKD_INSTANCE"), os.Getpid())
	var wg sync.WaitGroup
	var end func() error
	if role == "udp" {
		c, err := activation.ListenPacket(context.Background(), "x", "udp4", address)
		if err != nil {
			return err
		}
		end = func() error { return c.SetReadDeadline(time.Now()) } // what is queued is the successor's
		wg.Go(func() {
			var buf [64]byte
			for {
				n, from, err := c.ReadFrom(buf[:])
				if err != nil {
					return
				}
				c.WriteTo([]byte(string(buf[:n])+" "+answer), from)
			}
		})
	} else {
		l, err := activation.Listen(context.Background(), "x", "tcp4", address)
		if err != nil {
			return err
		}
		end = l.Close
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() { c.Write([]byte(answer)); c.Close() })
			}
		})
	}
	if err := activation.Ready(); err != nil {
		return err
	}
	fmt.Print("r") // for who has no notify socket
	<-stop
	err := end()
	wg.Wait()
	return err
}

// serviceInGo is a copy of the test binary where everybody can reach it.
var serviceInGo = sync.OnceValues(func() (string, error) {
	dir, err := programs()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "balance-service-in-go")
	return file, os.WriteFile(file, text, 0o755)
})

// serviceInC compiles testdata/balance/service.c once a run.
var serviceInC = sync.OnceValues(func() (string, error) {
	dir, err := programs()
	if err != nil {
		return "", err
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		return "", errSkipped{"no gcc: the service in C is not compiled"}
	}
	file := filepath.Join(dir, "balance-service")
	if out, err := exec.Command(gcc, "-O2", "-static", "-o", file, "testdata/balance/service.c").CombinedOutput(); err != nil {
		return "", fmt.Errorf("gcc: %w\n%s", err, out)
	}
	return file, nil
})

// An errSkipped is the reason for which a test cannot be run here.
type errSkipped struct{ because string }

func (e errSkipped) Error() string { return e.because }

func inC(t testing.TB) string {
	t.Helper()
	file, err := serviceInC()
	if skip := (errSkipped{}); errors.As(err, &skip) {
		t.Skip(skip)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// A balanced is a sockd with one unit, web, for the benchmark.
type balanced struct {
	Name      string // in tables
	Level     string // SOCKD_STEERING; "": the best
	Go        bool   // a service written in Go, else in C
	Role      string // tcp, which is the default, or udp
	Instances int
	Shared    bool   // one socket for all
	Keys      string // more of [service]
	Options   string // more of [socket.x]
	World     world
	Apart     bool // started in another network namespace

	t       testing.TB
	dir     string
	r       *running
	client  *supervisor.Client
	address string
}

// up starts it and waits until all instances are ready.
func (b *balanced) up(t testing.TB) *balanced {
	t.Helper()
	b.t, b.dir = t, shortDir(t)
	if b.Role == "" {
		b.Role = "tcp"
	}
	b.write(b.Options)
	os.Mkdir(filepath.Join(b.dir, "run"), 0o700)
	if b.World.UID != 0 {
		os.Chown(b.dir, b.World.UID, b.World.UID)
		os.Chown(filepath.Join(b.dir, "run"), b.World.UID, b.World.UID)
	}
	b.World.Args = []string{"run", filepath.Join(b.dir, "web.toml")}
	b.World.Vars = map[string]string{"SOCKD_STEERING": b.Level}
	b.r = b.World.start(t, b.dir)
	b.client = supervisor.NewClient(filepath.Join(b.dir, "run"))
	var st supervisor.UnitStatus
	eventually(t, b.Name+" is ready", func() bool {
		select {
		case <-b.r.ended:
			t.Fatalf("%s: sockd has ended: %s", b.Name, b.r.said())
		default:
		}
		var err error
		st, err = b.client.Unit(t.Context(), "web")
		return err == nil && st.State == "ready"
	})
	b.address = st.Sockets[0].Address
	return b
}

// write writes the unit file, with these options of the socket.
func (b *balanced) write(options string) {
	b.t.Helper()
	var u strings.Builder
	fmt.Fprintf(&u, "[service]\nready = \"notify\"\nstart = \"boot\"\ninstances = %d\nrestart_delay = \"0s\"\nrestart_delay_max = \"100ms\"\nrestart_reset = \"20ms\"\n", b.Instances)
	if b.Go {
		exe, err := serviceInGo()
		if err != nil {
			b.t.Fatal(err)
		}
		fmt.Fprintf(&u, "exec = [%q]\nenvironment = { TEST_BALANCE = %q }\n", exe, b.Role)
	} else {
		fmt.Fprintf(&u, "exec = [%q, \"%d\"]\n", inC(b.t), startUp.Milliseconds())
	}
	fmt.Fprintf(&u, "%s\n[socket.x]\nlisten = \"%s://127.0.0.1:0\"\nnon_blocking = true\nper_instance = %v\n%s\n", b.Keys, b.Role, !b.Shared, options)
	write(b.t.(*testing.T), b.dir, "web.toml", u.String())
}

// has skips a test where the level cannot be had.
func (b *balanced) has(t testing.TB) {
	t.Helper()
	if got := b.level(); got != b.Level {
		t.Skipf("%s: siblings are steered by %s here", b.Level, got)
	}
}

// level is how its siblings are steered.
func (b *balanced) level() string { return b.status().Sockets[0].Steering }

func (b *balanced) status() supervisor.UnitStatus {
	b.t.Helper()
	return statusOf(b.t, b.dir, "web")
}

// restart replaces every instance and waits for the end of it.
func (b *balanced) restart() error {
	out, err := b.client.Verb(b.t.Context(), "web", "restart", true, patience)
	if err == nil && out.Outcome != supervisor.Done {
		err = fmt.Errorf("restart: %+v", out)
	}
	return err
}

// kill ends the process of an instance, if it is ready. It says whether it was.
func (b *balanced) kill(instance int) (bool, error) {
	st, err := b.client.Unit(b.t.Context(), "web")
	if err != nil {
		return false, err
	}
	in := st.Instances[instance-1]
	if in.State != "ready" || len(in.Runs) != 1 {
		return false, nil
	}
	return true, syscall.Kill(in.Runs[0].Pid, syscall.SIGKILL)
}

// netns is the network namespace that it is in, for a volley.
func (b *balanced) netns() string {
	if !b.Apart {
		return ""
	}
	return fmt.Sprintf("/proc/%d/ns/net", b.r.cmd.Process.Pid)
}

// listening is a listener for peers that hand it on, in non-blocking mode: a process
// may find that another has taken what poll has shown to both.
func listening(t testing.TB) (*os.File, string) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Of a file that was blocking when os came to know it os leaves the mode alone;
	// else each start of a process would make it blocking again, for all of them.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	unix.SetNonblock(fd, false)
	own := os.NewFile(uintptr(fd), "listener")
	t.Cleanup(func() { own.Close() })
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	return own, l.Addr().String()
}
