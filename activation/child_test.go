package activation

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is its own child: with roleVar set it plays a role instead of
// running tests. The role "launch" is the supervisor's part in between: it sets
// LISTEN_PID to its own pid, as only the child can, and executes itself.
const (
	roleVar   = "ACTIVATION_TEST_ROLE"
	launchVar = "ACTIVATION_TEST_LAUNCH"
)

// roles are what a child can do. What one returns is printed after "error: ".
var roles = map[string]func() error{
	"ask": ask, "echo": echo, "inspect": inspect, "notify": notifyRole, "serve": serveRole, "watchdog": watchdogRole,
	"crowd": crowd, "closing": closing, "crammed": crammed, "liedTo": liedTo,
}

func TestMain(m *testing.M) {
	if os.Getenv(launchVar) != "" {
		os.Unsetenv(launchVar)
		for _, name := range []string{"LISTEN_PID", "WATCHDOG_PID"} {
			if os.Getenv(name) == "self" {
				os.Setenv(name, fmt.Sprint(os.Getpid()))
			}
		}
		err := syscall.Exec("/proc/self/exe", os.Args, os.Environ())
		fmt.Fprintln(os.Stderr, "launch:", err)
		os.Exit(1)
	}
	if role := os.Getenv(roleVar); role != "" {
		if err := roles[role](); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.TempDir()) > 20 { // a Unix socket's path may have 107 bytes, and tests have long names
		os.Setenv("TMPDIR", "/tmp")
	}
	os.Exit(m.Run())
}

// A child is a role that runs.
type child struct {
	*exec.Cmd
	out *bufio.Reader
}

// start runs a role with files from descriptor 3 on. LISTEN_PID and WATCHDOG_PID
// that are "self" become the child's pid.
func start(t *testing.T, role string, files []*os.File, env ...string) *child {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVar+"="+role, launchVar+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.Env = append(cmd.Env, env...)
	cmd.ExtraFiles = files
	return run(t, cmd)
}

// run starts cmd and ends it with the test.
func run(t *testing.T, cmd *exec.Cmd) *child {
	t.Helper()
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return &child{cmd, bufio.NewReader(out)}
}

// line reads a line of the child's output.
func (c *child) line(t *testing.T) string {
	t.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil {
		t.Fatalf("child's output ended after %q: %v", line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

// rest reads all that is left and waits for the child's end.
func (c *child) rest(t *testing.T) string {
	t.Helper()
	text, err := io.ReadAll(c.out)
	if err != nil {
		t.Fatal(err)
	}
	c.Wait()
	return string(text)
}

// longWait bounds every wait of a test. It is never waited out when all is well.
const longWait = 60 * time.Second

// limited bounds what a test waits for; it is no measurement.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), longWait)
	t.Cleanup(cancel)
	return ctx
}

// filer is what has a descriptor to pass on.
type filer interface{ File() (*os.File, error) }

// file duplicates f's descriptor for a child.
func file(t *testing.T, f any) *os.File {
	t.Helper()
	file, err := f.(filer).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}
