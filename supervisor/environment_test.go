package supervisor

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// environmentOf runs env with a service's keys and returns what it prints, sorted.
func environmentOf(t *testing.T, keys string, files ...string) []string {
	t.Helper()
	f := prepare(t, "env", "[service]\nexec = [\"/usr/bin/env\"]\nrestart = \"no\"\n"+keys)
	for i := 0; i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(f.dir, files[i]), []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f.start()
	f.awaitState("env", 1, "exited")
	f.stop()
	var list []string
	for line := range strings.Lines(f.out.String()) {
		_, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "| ")
		list = append(list, text)
	}
	slices.Sort(list)
	return list
}

func value(env []string, name string) string {
	for _, v := range env {
		if rest, ok := strings.CutPrefix(v, name+"="); ok {
			return rest
		}
	}
	return "(not set)"
}

func TestNothingOfSockdsOwnLeaks(t *testing.T) {
	for _, name := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID", "SOCKD_RUNTIME_DIR", "FDSTORE"} {
		t.Setenv(name, "leaked")
	}
	t.Setenv("NOTIFY_SOCKET", "/leaked")
	t.Setenv("ORDINARY", "passed on")
	env := environmentOf(t, "")
	for _, v := range env {
		if strings.Contains(v, "leaked") {
			t.Errorf("leaked: %s", v)
		}
	}
	if value(env, "ORDINARY") != "passed on" || value(env, "SOCKD_UNIT") != "env" || value(env, "SOCKD_INSTANCE") != "1" ||
		value(env, "SOCKD_GENERATION") != "1" || !strings.HasPrefix(value(env, "NOTIFY_SOCKET"), "@") {
		t.Errorf("%q", env)
	}
	alone := environmentOf(t, "inherit_environment = false\nenvironment = { A = \"1\" }\n")
	var names []string
	for _, v := range alone {
		name, _, _ := strings.Cut(v, "=")
		names = append(names, name)
	}
	if want := "A NOTIFY_SOCKET PATH SOCKD_GENERATION SOCKD_INSTANCE SOCKD_INSTANCES SOCKD_UNIT"; strings.Join(names, " ") != want {
		t.Errorf("alone: %q, want %s", names, want)
	}
}

func TestEnvironmentFiles(t *testing.T) {
	env := environmentOf(t, "environment_files = [\"one\", \"-missing\", \"two\"]\n",
		"one", "# a comment\n; another\n\nA=one\nB = \" spaces kept \"\nC='single'\nexport D=d\nE=\n", "two", "A=two\n")
	for name, want := range map[string]string{"A": "two", "B": " spaces kept ", "C": "single", "D": "d", "E": ""} {
		if got := value(env, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// What may stand in a file is what may stand in environment: names that only begin like
// sockd's own are the service's.
func TestEnvironmentFilesTakeWhatEnvironmentDoes(t *testing.T) {
	names := []string{"LISTEN_ADDR", "WATCHDOG_MODE", "SOCKD_RUNTIME_DIR"}
	var here, there string
	for _, name := range names {
		here, there = here+name+" = \"here\"\n", there+name+"=there\n"
	}
	for want, env := range map[string][]string{
		"here":  environmentOf(t, "[service.environment]\n"+here),
		"there": environmentOf(t, "environment_files = \"file\"\n", "file", there),
	} {
		for _, name := range names {
			if got := value(env, name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	}
}

func TestEnvironmentFileErrors(t *testing.T) {
	f := prepare(t, "web", "[service]\nexec = [\"/usr/bin/env\"]\nrestart = \"no\"\nenvironment_files = [\"file\"]\n")
	path := filepath.Join(f.dir, "file")
	for _, c := range []struct{ name, text, want string }{
		{"no equals sign", "A=1\nnonsense\n", path + ":2: not NAME=value"},
		{"no name", "=x\n", path + ":1: not NAME=value"},
		{"ours", "A=1\n\nLISTEN_FDS=3\n", path + ":3: LISTEN_FDS is set by sockd"},
		{"ours for some", "FDSTORE=1\n", path + ":1: FDSTORE is set by sockd"},
		{"missing", "", "no such file"},
		{"a FIFO", "", "is not a regular file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			os.Remove(path)
			switch c.name {
			case "missing":
			case "a FIFO":
				if err := unix.Mkfifo(path, 0o600); err != nil {
					t.Fatal(err)
				}
			default:
				os.WriteFile(path, []byte(c.text), 0o600)
			}
			f.t = t
			f.start()
			e := f.await("not started", func(e Event) bool { return e.What == "not started" })
			if !strings.HasPrefix(e.Because, "environment: environment_files: ") || !strings.Contains(e.Because, c.want) {
				t.Errorf("because %q, want %q", e.Because, c.want)
			}
			f.stop()
		})
	}
}

// needOtherUser skips where no process can be started as another user: uid 0 of a
// container need not be allowed to.
func needOtherUser(t *testing.T) {
	t.Helper()
	cmd := exec.Command("/bin/true")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := cmd.Run(); err != nil {
		t.Skipf("needs root to become another user: %v", err)
	}
}

func TestServiceAsAnotherUser(t *testing.T) {
	needOtherUser(t)
	f := newFixture(t, "id", "[service]\nexec = [\"/bin/sh\", \"-c\", \"id -u; id -g; id -G; echo $USER $HOME\"]\nrestart = \"no\"\nuser = \"nobody\"\ndirectory = \"/\"\n")
	f.awaitState("id", 1, "exited")
	f.stop()
	lines := strings.Split(f.out.String(), "\n")
	if len(lines) < 4 || !strings.HasSuffix(lines[0], "| 65534") || !strings.HasSuffix(lines[2], "| 65534") || !strings.Contains(lines[3], "| nobody /") {
		t.Errorf("%q", lines)
	}
}
