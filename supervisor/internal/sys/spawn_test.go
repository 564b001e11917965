package sys

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// launch starts s with a pipe as output and returns what it printed and how it
// ended; err is what Start or Execed said.
func launch(t testing.TB, s Spec) (output string, st Status, err error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s.Output = dupFD(t, w)
	w.Close()
	child, err := Start(&s)
	unix.Close(s.Output)
	if err != nil {
		return "", st, err
	}
	failure := child.Execed()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if st, err = child.Wait(); err != nil {
		t.Fatal(err)
	}
	child.Reap()
	return string(b), st, failure
}

func dupFD(t testing.TB, f *os.File) int {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	raw.Control(func(p uintptr) { fd, err = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 3) })
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func spec(argv ...string) Spec {
	s := Spec{}
	s.Argv, s.Env, s.Umask = argv, []string{"PATH=/usr/bin:/bin"}, -1
	return s
}

func rolePlayer(name string) Spec {
	s := spec(os.Args[0])
	s.Env = append(s.Env, roleEnv+"="+name)
	return s
}

func init() {
	roles["descriptors"] = func() int {
		var table strings.Builder // printing opens Go's poller, which would be in it
		for fd := range 4096 {
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if err != nil || flags != 0 {
				continue // close-on-exec: not inherited, but opened by Go's runtime
			}
			name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			fmt.Fprintln(&table, fd, name)
		}
		fmt.Print(table.String())
		return 0
	}
}

func memfd(t testing.TB, name string, flags int) int {
	t.Helper()
	fd, err := unix.MemfdCreate(name, flags)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// A child has 0, 1, 2 and what was declared, in order, whatever the numbers were
// in the parent, and nothing that the parent left open without close-on-exec.
func TestDescriptorTable(t *testing.T) {
	var low []int
	for i := range 40 {
		low = append(low, memfd(t, fmt.Sprint("f", i), unix.MFD_CLOEXEC))
	}
	memfd(t, "leaky", 0)
	orders := map[string][]int{
		"none":      nil,
		"one":       low[:1],
		"in order":  low,
		"backwards": reversed(low),
		"twice":     {low[3], low[3], low[0]},
		"rotated":   append(slices.Clone(low[7:]), low[:7]...),
	}
	var many []int
	for i := range hundreds(t) {
		many = append(many, low[i*7%len(low)])
	}
	orders["hundreds"] = many
	for name, files := range orders {
		t.Run(name, func(t *testing.T) {
			s := rolePlayer("descriptors")
			s.Files = files
			out, st, err := launch(t, s)
			if err != nil || st != (Status{}) {
				t.Fatalf("%v %+v\n%s", err, st, out)
			}
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if len(lines) != 3+len(files) {
				t.Fatalf("%d descriptors, want %d:\n%s", len(lines), 3+len(files), out)
			}
			if lines[0] != "0 /dev/null" || !strings.HasPrefix(lines[1], "1 pipe:") || !strings.HasPrefix(lines[2], "2 pipe:") {
				t.Errorf("standard descriptors:\n%s", strings.Join(lines[:3], "\n"))
			}
			for i, fd := range files {
				name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
				if want := fmt.Sprintf("%d %s", 3+i, name); lines[3+i] != want {
					t.Errorf("got %q, want %q", lines[3+i], want)
				}
			}
		})
	}
}

// Signals, mask, session and limits are those of a program started by hand, also
// if we were started under nohup.
func TestCleanStart(t *testing.T) {
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGUSR1)
	defer signal.Reset(syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGUSR1)
	out, st, err := launch(t, spec("cat", "/proc/self/status", "/proc/self/limits", "/proc/self/stat"))
	if err != nil || st != (Status{}) {
		t.Fatal(err, st)
	}
	for _, name := range []string{"SigIgn", "SigBlk", "SigCgt"} {
		if !strings.Contains(out, name+":\t0000000000000000\n") {
			t.Errorf("%s is not empty:\n%s", name, out)
		}
	}
	var soft, hard string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max open files") {
			soft, hard = f[3], f[4]
		}
	}
	if want := os.Getenv("SOCKD_TEST_NOFILE"); want != "" && soft != want {
		t.Errorf("soft limit of descriptors is %s, want %s", soft, want)
	}
	if hard == "" {
		t.Error("no limits in the output")
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	s, ok := parseStat([]byte(lines[len(lines)-1]))
	if !ok || s.session != s.pid || s.group != s.pid {
		t.Errorf("not the leader of its own session: %+v", s)
	}
}

// Go raises the soft limit of descriptors for itself; a service must not see that.
func TestDescriptorLimit(t *testing.T) {
	if os.Getenv("SOCKD_TEST_NOFILE") != "" {
		t.Skip("this is the inner one")
	}
	s := spec("/bin/sh", "-c", `ulimit -S -n 777 && exec "$0" -test.run '^TestCleanStart$'`, os.Args[0])
	s.Env = append(s.Env, "SOCKD_TEST_NOFILE=777")
	if out, st, err := launch(t, s); err != nil || st != (Status{}) {
		t.Errorf("%v %+v\n%s", err, st, out)
	}
}

func TestEnvironmentAndPlace(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := spec("sh", "-c", `echo $$; echo "$LISTEN_PID $WATCHDOG_PID"; pwd; umask; env | sort`)
	s.Env = append(s.Env, "LISTEN_PID=1", "A=x y", "LISTEN_PIDS=keep")
	s.PidEnv = []string{"LISTEN_PID", "WATCHDOG_PID"}
	s.Dir = dir
	s.Umask = 0o027
	out, _, err := launch(t, s)
	if err != nil {
		t.Fatal(err)
	}
	pid, _, _ := strings.Cut(out, "\n")
	want := fmt.Sprintf("%[1]s\n%[1]s %[1]s\n%[2]s\n0027\nA=x y\nLISTEN_PID=%[1]s\nLISTEN_PIDS=keep\nPATH=/usr/bin:/bin\nPWD=%[2]s\nWATCHDOG_PID=%[1]s\n", pid, dir)
	if n, err := strconv.Atoi(pid); err != nil || n <= 1 || out != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}

func TestStages(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("plain", "no program\n", 0o644)
	write("script", "echo no first line\n", 0o755)
	write("lost", "#!/no/such/interpreter\n", 0o755)
	tests := []struct {
		name, argv0, dir, path string
		want                   string
		errno                  error
	}{
		{"no such program", "./web", dir, "", "exec: ./web: no such file or directory", unix.ENOENT},
		{"no such command", "web", dir, "/nope:/bin", "exec: web in PATH: no such file or directory", unix.ENOENT},
		{"not executable", "./plain", dir, "", "exec: ./plain: permission denied", unix.EACCES},
		{"not executable, in PATH", "plain", dir, "/nope:" + dir + ":/bin", "exec: plain: permission denied", unix.EACCES},
		{"not a program", "./script", dir, "", "exec: ./script: exec format error", unix.ENOEXEC},
		{"not a program, in PATH", "script", dir, dir, "exec: " + dir + "/script: exec format error", unix.ENOEXEC},
		{"interpreter missing", "./lost", dir, "", "exec: ./lost: its interpreter or loader: no such file or directory", unix.ENOENT},
		{"a folder", "/", dir, "", "exec: /: permission denied", unix.EACCES},
		{"through a file", "./plain/x", dir, "", "exec: ./plain/x: not a directory", unix.ENOTDIR},
		{"no such directory", "/bin/true", "/nope", "", "directory: /nope: no such file or directory", unix.ENOENT},
		{"not a directory", "/bin/true", filepath.Join(dir, "plain"), "", "directory: " + dir + "/plain: not a directory", unix.ENOTDIR},
		{"empty PATH is here", "script", dir, ":", "exec: script: exec format error", unix.ENOEXEC},
		{"no program", "", dir, "", "fork: job: no program", unix.EINVAL},
		{"NUL", "a\x00b", dir, "", "fork: job: NUL byte in a string", unix.EINVAL},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := spec(tt.argv0)
			s.Dir = tt.dir
			if tt.path != "" {
				s.Env = []string{"PATH=" + tt.path}
			}
			out, st, err := launch(t, s)
			if err == nil || err.Error() != tt.want || !errors.Is(err, tt.errno) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if out != "" || (!strings.HasPrefix(tt.want, "fork") && st != Status{Code: 127}) {
				t.Errorf("output %q, status %+v", out, st)
			}
		})
	}
	t.Run("arguments too long", func(t *testing.T) {
		_, _, err := launch(t, spec("/bin/true", strings.Repeat("x", 3<<20)))
		if !errors.Is(err, unix.E2BIG) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("bad descriptor", func(t *testing.T) {
		s := spec("/bin/true")
		s.Files = []int{1 << 19}
		if _, _, err := launch(t, s); !errors.Is(err, unix.EBADF) || err.Error() != "fork: bad file descriptor" {
			t.Errorf("got %v", err)
		}
	})
}

// Nothing of the parent's is used up by a start, be it a good or a bad one.
func TestNoDescriptorLeaks(t *testing.T) {
	launch(t, spec("/bin/true")) // opens what is opened once
	before := openDescriptors(t)
	for range 20 {
		launch(t, spec("/bin/true"))
		launch(t, spec("/nope"))
		launch(t, spec("a\x00"))
	}
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func openDescriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func reversed(list []int) []int {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}
