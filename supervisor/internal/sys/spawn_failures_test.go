package sys

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Both ways fail at the same step, on the same thing, for the same reason.
func TestWaysFailAlike(t *testing.T) {
	needDirect(t)
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"plain": 0o644, "script": 0o755} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("no first line\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "lost"), []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, argv0, dir, path string
		set                    func(*Spec)
		stage                  string
		errno                  syscall.Errno
	}{
		{"missing", "./web", dir, "", nil, "exec", unix.ENOENT},
		{"missing in PATH", "web", dir, "/nope:/bin", nil, "exec", unix.ENOENT},
		{"not executable", "./plain", dir, "", nil, "exec", unix.EACCES},
		{"not executable in PATH", "plain", dir, "/nope:" + dir + ":/bin", nil, "exec", unix.EACCES},
		{"through a file in PATH", "plain", dir, "/etc/passwd:/dev/null", nil, "exec", unix.ENOENT},
		{"not a program", "./script", dir, "", nil, "exec", unix.ENOEXEC},
		{"not a program in PATH", "script", dir, "/nope:" + dir + ":/bin", nil, "exec", unix.ENOEXEC},
		{"no interpreter", "./lost", dir, "", nil, "exec", unix.ENOENT},
		{"no interpreter in PATH", "lost", dir, dir + ":/bin", nil, "exec", unix.ENOENT},
		{"a folder", "/", dir, "", nil, "exec", unix.EACCES},
		{"through a file", "./plain/x", dir, "", nil, "exec", unix.ENOTDIR},
		{"a loop in PATH", "x", dir, "/proc/self/fd/0", nil, "exec", unix.ENOENT},
		{"name too long", "./" + strings.Repeat("x", 256), dir, "", nil, "exec", unix.ENAMETOOLONG},
		{"empty PATH is here", "script", dir, ":", nil, "exec", unix.ENOEXEC},
		{"no such directory", "/bin/true", "/nope", "", nil, "directory", unix.ENOENT},
		{"not a directory", "/bin/true", filepath.Join(dir, "plain"), "", nil, "directory", unix.ENOTDIR},
		{"argument too long", "/bin/true", dir, "", func(s *Spec) { s.Argv = append(s.Argv, strings.Repeat("x", 1<<20)) }, "exec", unix.E2BIG},
		{"too many arguments", "/bin/true", dir, "", func(s *Spec) { s.Argv = many([]string{"/bin/true"}, 1_000_000) }, "exec", unix.E2BIG},
		{"bad gid", "/bin/true", dir, "", func(s *Spec) { s.Credential = unprivileged(); s.Credential.GID = 1<<32 - 2 }, "", 0},
		{"bad groups", "/bin/true", dir, "", func(s *Spec) { s.Credential = unprivileged(); s.Credential.Groups = []uint32{1<<32 - 1} }, "user", unix.EINVAL},
		{"directory not for the user", "/bin/true", "/root", "", func(s *Spec) { s.Credential = unprivileged() }, "directory", unix.EACCES},
	}
	out := newPipe(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []outcome
			for _, w := range ways {
				s := spec(tt.argv0)
				s.Dir = tt.dir
				if tt.path != "" {
					s.Env = []string{"PATH=" + tt.path}
				}
				if tt.set != nil {
					tt.set(&s)
				}
				if s.Credential != nil && os.Getuid() != 0 {
					t.Skip("needs root to become another user")
				}
				got = append(got, w.run(t, out, s))
			}
			a, b := got[0], got[1]
			if message(a.failure) != message(b.failure) || a.status != b.status || a.output != b.output {
				t.Fatalf("trampoline: %v, %+v, %q\n    direct: %v, %+v, %q", a.failure, a.status, a.output, b.failure, b.status, b.output)
			}
			if tt.stage == "" {
				return
			}
			if f := (*Failure)(nil); !errors.As(b.failure, &f) || f.Stage != tt.stage || f.Errno != tt.errno || b.status != (Status{Code: 127}) {
				t.Errorf("%v, %+v, want stage %s and %v", b.failure, b.status, tt.stage, tt.errno)
			}
		})
	}
}

// A descriptor that is not open: the trampoline is not even made, but that is no
// difference to anybody.
func TestWaysFailAlikeOnDescriptors(t *testing.T) {
	needDirect(t)
	s := spec("/bin/true")
	s.Output, s.Files = -1, []int{1 << 19}
	for _, w := range ways {
		child, execed, err := w.start(&s)
		if err == nil {
			err = execed()
			child.Wait()
			child.Reap()
			if f := (*Failure)(nil); !errors.As(err, &f) || f.Stage != "fork" {
				t.Errorf("%s: %v", w.name, err)
			}
		}
		if !errors.Is(err, unix.EBADF) {
			t.Errorf("%s: %v", w.name, err)
		}
	}
}

// A child that is killed before its first instruction, as in a cgroup that has been
// killed once (Linux 6.14), is a failed start in both ways and no program that died.
func TestWaysAgreeOnTheKilled(t *testing.T) {
	needDirect(t)
	c, err := OpenCgroup()
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(c.Close)
	out := newPipe(t)
	var got []outcome
	for _, w := range ways {
		s := spec("/bin/true")
		s.Leaf = leafFor(t, c)
		if err := s.Leaf.Kill(); err != nil {
			t.Skip(err)
		}
		got = append(got, w.run(t, out, s))
	}
	a, b := got[0], got[1]
	if message(a.failure) != message(b.failure) || a.status != b.status {
		t.Fatalf("trampoline: %v, %+v\n    direct: %v, %+v", a.failure, a.status, b.failure, b.status)
	}
	if b.status == (Status{}) {
		t.Skip("this kernel lets it live")
	}
	if f := (*Failure)(nil); !errors.As(b.failure, &f) || f.Stage != "killed" || b.status != (Status{Signal: int(unix.SIGKILL)}) {
		t.Errorf("%v, %+v", b.failure, b.status)
	}
}

// What could not be opened once is tried again, and what is open stays so.
func TestOpenedAgain(t *testing.T) {
	o := opened{name: filepath.Join(t.TempDir(), "null")}
	if fd, err := o.get(); !errors.Is(err, unix.ENOENT) {
		t.Fatal(fd, err)
	}
	if err := os.WriteFile(o.name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := o.get()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(first)
	if again, err := o.get(); err != nil || again != first {
		t.Error(first, again, err)
	}
}
