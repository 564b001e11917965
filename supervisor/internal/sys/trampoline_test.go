package sys

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys/trampoline"
)

func init() {
	roles["still me"] = func() int {
		fmt.Print("still me")
		return 0
	}
}

// A program is the trampoline only when started as one: by name, with the
// variable, and with the sealed job. With less it is itself.
func TestTrampolineByAccident(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long, and the race detector sees nothing new in it: without -short")
	}
	job := trampoline.Job{Argv: []string{"/bin/echo", "-n", "became another"}, Umask: -1}
	sealed, err := sealedJob(&job)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sealed)
	open := memfd(t, "unsealed", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	encoded, _ := job.Encode()
	unix.Write(open, encoded)
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	tests := []struct {
		name, argv0 string
		env         []string
		job         int
		want        string
	}{
		{"all of it", trampoline.Argv0, trampoline.Env(0), sealed, "became another"},
		{"another name", "sockd", trampoline.Env(0), sealed, "still me"},
		{"a longer name", trampoline.Argv0 + "x", trampoline.Env(0), sealed, "still me"},
		{"no variable", trampoline.Argv0, nil, sealed, "still me"},
		{"nonsense in the variable", trampoline.Argv0, []string{"SOCKD_TRAMPOLINE=x"}, sealed, "still me"},
		{"wrong number", trampoline.Argv0, trampoline.Env(7), sealed, "still me"},
		{"job not sealed", trampoline.Argv0, trampoline.Env(0), open, "still me"},
		{"no job but a device", trampoline.Argv0, trampoline.Env(0), null, "still me"},
	}
	for _, tt := range tests {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		output := dupFD(t, w)
		w.Close()
		pid, err := syscall.ForkExec("/proc/self/exe", []string{tt.argv0}, &syscall.ProcAttr{
			Env:   append(tt.env, roleEnv+"=still me"),
			Files: []uintptr{uintptr(null), uintptr(output), 2, uintptr(tt.job), uintptr(null)},
		})
		unix.Close(output)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, _ := r.Read(b)
		r.Close()
		if got := string(b[:n]); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		var ws unix.WaitStatus
		unix.Wait4(pid, &ws, 0, nil)
	}
}

// A damaged job is reported, and nothing is executed.
func TestDamagedJob(t *testing.T) {
	child := func(b []byte) string {
		fd := memfd(t, "job", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		unix.Write(fd, b)
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, trampoline.Seals); err != nil {
			t.Fatal(err)
		}
		var pipe [2]int
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pipe[0])
		pid, err := syscall.ForkExec("/proc/self/exe", []string{trampoline.Argv0}, &syscall.ProcAttr{
			Env: trampoline.Env(0), Files: []uintptr{0, 1, 2, uintptr(fd), uintptr(pipe[1])},
		})
		unix.Close(pipe[1])
		if err != nil {
			t.Fatal(err)
		}
		var ws unix.WaitStatus
		unix.Wait4(pid, &ws, 0, nil)
		report := make([]byte, trampoline.MaxReport)
		n, _ := unix.Read(pipe[0], report)
		reached, failure := trampoline.ParseReport(report[:max(n, 0)])
		if reached || failure == nil || ws.ExitStatus() != 127 {
			return fmt.Sprint(reached, failure, ws)
		}
		return failure.Error()
	}
	job := trampoline.Job{Argv: []string{"/bin/true"}, Umask: -1}
	good, _ := job.Encode()
	for name, b := range map[string][]byte{"empty": nil, "garbage": []byte("garbage"), "cut": good[:len(good)-1], "too long": append(good, 0)} {
		if got := child(b); !strings.HasPrefix(got, "job: job: ") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// A file that has been replaced, or removed, since we started does not matter.
func TestReplacedExecutable(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "test")
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name)
	cmd.Env = append(os.Environ(), roleEnv+"=replaced", "NAME="+name)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func init() {
	roles["replaced"] = func() int {
		name := os.Getenv("NAME")
		for _, change := range []func() error{
			func() error { return os.Remove(name) },
			func() error { return os.WriteFile(name, []byte("another version"), 0o755) },
		} {
			s := spec("/bin/true")
			s.Output = -1
			child, err := Start(&s)
			if err == nil {
				err = child.Execed()
			}
			if err == nil {
				_, err = child.Wait()
			}
			if err == nil {
				err = change()
			}
			if err != nil {
				fmt.Println(err)
				return 1
			}
		}
		return 0
	}
}

// The service's own variables cannot steer the runtime of the trampoline, and the
// trampoline's variable does not reach the service.
func TestEnvironmentDoesNotReachTheTrampoline(t *testing.T) {
	s := spec("env")
	s.Env = append(s.Env, "GODEBUG=inittrace=1,gctrace=1", "GOMAXPROCS=x", "GOGC=1")
	out, _, err := launch(t, s)
	if want := "PATH=/usr/bin:/bin\nGODEBUG=inittrace=1,gctrace=1\nGOMAXPROCS=x\nGOGC=1\n"; err != nil || out != want {
		t.Errorf("%v\n%s", err, out)
	}
}
