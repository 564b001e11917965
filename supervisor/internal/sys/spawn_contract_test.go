package sys

import (
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Both ways end in the same world, whatever the job and whatever we have become
// by the time of the start.
func TestWaysAgree(t *testing.T) {
	needDirect(t)
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGUSR1)
	defer signal.Reset(syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGUSR1)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for range 30 { // among them the first number that a child is not to have
		memfd(t, "leaky", 0)
	}
	var files []int
	for i := range 20 {
		files = append(files, memfd(t, "f"+strconv.Itoa(i), unix.MFD_CLOEXEC))
	}
	unix.SetNonblock(files[1], true)
	hundreds := hundreds(t)
	if os.Getenv("SOCKD_TEST_NOFILE") != "" {
		hundreds = 50 // the loader of a trampoline that is not static needs one more below the limit
	}
	tests := []struct {
		name string
		root bool
		set  func(*Spec)
	}{
		{"plain", false, func(s *Spec) {}},
		{"no environment", false, func(s *Spec) { s.Env = s.Env[1:] }},
		{"files", false, func(s *Spec) { s.Files = files }},
		{"files backwards", false, func(s *Spec) { s.Files = reversed(files) }},
		{"files twice", false, func(s *Spec) { s.Files = []int{files[0], files[1], files[0], 0, 2} }},
		{"hundreds of files", false, func(s *Spec) { s.Files = many(files, hundreds) }},
		{"own pid", false, func(s *Spec) {
			s.PidEnv = []string{"LISTEN_PID", "WATCHDOG_PID"}
			s.Env = append(s.Env, "LISTEN_PID=1", "LISTEN_PIDS=2", "=odd", "empty=", "no equals", "A=1", "A=2", "LISTEN_PID=3", "WATCHDOG_PID=")
		}},
		{"own pidfd", false, func(s *Spec) {
			s.PidEnv, s.PidfdEnv = []string{"LISTEN_PID"}, []string{"LISTEN_PIDFDID", "ANOTHER"}
			s.Env = append(s.Env, "LISTEN_PIDFDID=1", "LISTEN_PID=1", "A=1", "LISTEN_PIDFDID=2")
		}},
		{"steering variables", false, func(s *Spec) {
			s.Env = append(s.Env, "GODEBUG=inittrace=0", "LD_BIND_NOW=1", "PATH=/nope::/usr/bin:/bin:")
		}},
		{"directory", false, func(s *Spec) { s.Dir = dir }},
		{"umask 0", false, func(s *Spec) { s.Umask = 0 }},
		{"umask 077", false, func(s *Spec) { s.Umask = 0o077 }},
		{"a score for the OOM killer", false, func(s *Spec) { s.Score = "1000" }},
		{"and as another user", true, func(s *Spec) { s.Score, s.Credential = "1000", &Credential{UID: 65534, GID: 65533} }},
		{"one CPU", false, func(s *Spec) { s.CPU = 1 + firstCPU(t) }},
		{"arguments", false, func(s *Spec) { s.Argv = append(s.Argv, "", "/dev/null", "a b", strings.Repeat("x", 100_000)) }},
		{"ourselves", false, func(s *Spec) {
			s.Credential = &Credential{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Groups: ourGroups(t)}
		}},
		{"another user", true, func(s *Spec) { s.Credential = &Credential{UID: 65534, GID: 65533} }},
		{"with groups", true, func(s *Spec) {
			s.Credential = &Credential{UID: 65534, GID: 65533, Groups: []uint32{1, 7, 65533}}
			s.Dir, s.Umask = "/usr", 0o027
		}},
		{"root with groups", true, func(s *Spec) { s.Credential = &Credential{Groups: []uint32{3}} }},
	}
	out := newPipe(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.root && os.Getuid() != 0 {
				t.Skip("needs root to become another user")
			}
			agree(t, out, tt.set, func(s *Spec) bool { return s.Credential == nil || s.Credential.UID == uint32(os.Getuid()) })
		})
	}
	t.Run("cgroup", func(t *testing.T) {
		c, err := OpenCgroup()
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(c.Close)
		agree(t, out, func(s *Spec) { s.Leaf = leafFor(t, c) }, func(*Spec) bool { return true })
	})
}

func leafFor(t *testing.T, c *Cgroup) *Leaf {
	t.Helper()
	leaf, err := c.NewLeaf()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := leaf.Remove(); err != nil {
			t.Error(err)
		}
	})
	return leaf
}

// agree runs both programs, as set, both ways. The test binary itself may lie where
// another user cannot go; then own says no, and the kernel's view has to do.
func agree(t *testing.T, out *pipe, set func(*Spec), own func(*Spec) bool) {
	t.Helper()
	programs := map[string]func() Spec{
		"kernel's view": func() Spec {
			s := spec()
			set(&s)
			return looks(len(s.Files))
		},
		"program's view": func() Spec {
			s := rolePlayer("world")
			s.Env = append(s.Env, "GORACE=atexit_sleep_ms=0") // or it lingers for a second
			return s
		},
	}
	for name, program := range programs {
		var worlds []string
		for _, w := range ways {
			s := program()
			set(&s)
			if name == "program's view" && !own(&s) {
				continue
			}
			o := w.run(t, out, s)
			unreadable := name == "kernel's view" && o.status.Code == 1 // cat has been given arguments that are no files
			if o.failure != nil || o.status != (Status{}) && !unreadable {
				t.Fatalf("%s, %s: %v, %+v\n%s", w.name, name, o.failure, o.status, o.output)
			}
			worlds = append(worlds, seen(o))
		}
		if len(worlds) == 2 && worlds[0] != worlds[1] {
			t.Errorf("%s: not the same\n%s", name, difference(worlds[0], worlds[1]))
		}
	}
}

// The limit of descriptors is the one from before Go raised it, in both ways.
func TestWaysAgreeOnLimits(t *testing.T) {
	needDirect(t)
	if os.Getenv("SOCKD_TEST_NOFILE") != "" {
		t.Skip("this is the inner one")
	}
	for _, soft := range []string{"777", "64"} {
		s := spec("/bin/sh", "-c", "ulimit -S -n "+soft+` && exec "$0" -test.run '^(TestCleanStart|TestWaysAgree)$'`, os.Args[0])
		s.Env = append(s.Env, "SOCKD_TEST_NOFILE="+soft)
		if o := ways[0].run(t, newPipe(t), s); o.failure != nil || o.status != (Status{}) {
			t.Errorf("%v %+v\n%s", o.failure, o.status, o.output)
		}
	}
}

func unprivileged() *Credential { return &Credential{UID: 65534, GID: 65534} }

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// hundreds of files are as many as a child may be given where the limit is low: it has
// them twice for a moment.
func hundreds(t *testing.T) int {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return int(min(600, limit.Cur/4))
}

func many[T any](list []T, n int) []T {
	var all []T
	for i := range n {
		all = append(all, list[i*7%len(list)])
	}
	return all
}

func ourGroups(t *testing.T) []uint32 {
	t.Helper()
	list, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	var groups []uint32
	for _, g := range list {
		groups = append(groups, uint32(g))
	}
	return groups
}

// difference shows the lines of which only one side has any.
func difference(a, b string) string {
	var d strings.Builder
	for _, side := range []struct{ mark, mine, other string }{{"- ", a, b}, {"+ ", b, a}} {
		for line := range strings.Lines(side.mine) {
			if !strings.Contains("\n"+side.other, "\n"+line) {
				d.WriteString(side.mark + line[:min(len(line), 300)] + "\n")
			}
		}
	}
	return d.String()
}
