//go:build amd64 || arm64

package direct

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func strs(list []*byte) []string {
	var all []string
	for _, p := range list {
		if p == nil {
			return append(all, "(end)")
		}
		all = append(all, unix.BytePtrToString(p))
	}
	return all
}

// Lists end with nil, and no string has lost its end to the next one.
func TestPrepare(t *testing.T) {
	tests := []struct {
		name           string
		argv, env, pid []string
		dir            string
		wantEnv        string
		wantPrograms   string
	}{
		{"nothing but a program", []string{"/bin/true"}, nil, nil, "", "(end)", "/bin/true"},
		{"no PATH", []string{"a"}, []string{"HOME=/"}, nil, "/", "HOME=/ (end)", "/bin/a /usr/bin/a"},
		{"last PATH", []string{"a", "", "b"}, []string{"PATH=/x", "PATH=:/y::"}, nil, "", "PATH=/x PATH=:/y:: (end)", "a /y/a a a"},
		{"empty PATH", []string{"a"}, []string{"PATH="}, nil, "", "PATH= (end)", "a"},
		{"own pid", []string{"./a"}, []string{"P=1", "Q=", "P", "PP=2", "P=3"}, []string{"P", "R"}, "", "Q= P PP=2 P= R= (end)", "./a"},
	}
	for _, tt := range tests {
		s := &Spec{Cgroup: -1, Files: []int{5, 4}}
		s.Argv, s.Env, s.PidEnv, s.Dir = tt.argv, tt.env, tt.pid, tt.dir
		p, err := Prepare(s)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := strs(p.argv); !slices.Equal(got, append(slices.Clone(tt.argv), "(end)")) {
			t.Errorf("%s: arguments %q", tt.name, got)
		}
		if got := strings.Join(strs(p.env), " "); got != tt.wantEnv {
			t.Errorf("%s: environment %q, want %q", tt.name, got, tt.wantEnv)
		}
		if got := strings.Join(strs(p.programs), " "); got != tt.wantPrograms {
			t.Errorf("%s: programs %q, want %q", tt.name, got, tt.wantPrograms)
		}
		if tt.dir != "" && unix.BytePtrToString(p.dir) != tt.dir || len(p.pidAt) != len(tt.pid) || !slices.Equal(p.fds, []int32{5, 4}) {
			t.Errorf("%s: %+v", tt.name, p)
		}
	}
}

func TestPrepareRefuses(t *testing.T) {
	for name, set := range map[string]func(*Spec){
		"no program":         func(s *Spec) { s.Argv = nil },
		"empty program":      func(s *Spec) { s.Argv = []string{"", "a"} },
		"NUL in program":     func(s *Spec) { s.Argv[0] = "a\x00" },
		"NUL in argument":    func(s *Spec) { s.Argv = append(s.Argv, "\x00") },
		"NUL in variable":    func(s *Spec) { s.Env = []string{"A=\x00"} },
		"NUL in PATH":        func(s *Spec) { s.Env = []string{"PATH=/\x00:/bin"} },
		"NUL in directory":   func(s *Spec) { s.Dir = "/\x00" },
		"NUL in name of pid": func(s *Spec) { s.PidEnv = []string{"A\x00B"} },
	} {
		s := &Spec{Cgroup: -1}
		s.Argv = []string{"a"}
		set(s)
		if p, err := Prepare(s); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestPlanIsUsedOnce(t *testing.T) {
	s := &Spec{Cgroup: -1}
	s.Argv, s.Umask = []string{"/"}, -1
	p, err := Prepare(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := Start(p); errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	if _, _, _, err := Start(p); err != errUsed {
		t.Error(err)
	}
	unix.Wait4(int(p.report.pid), nil, 0, nil)
	unix.Close(int(p.report.pidfd))
}

func TestDecimal(t *testing.T) {
	for _, n := range []uint64{0, 9, 10, 99, 100, 4194304, 1<<64 - 1} {
		b := []byte(strings.Repeat("x", digits))
		decimal(&b[0], n)
		if got := unix.BytePtrToString(&b[0]); got != fmt.Sprint(n) {
			t.Errorf("%d became %q", n, got)
		}
	}
}
