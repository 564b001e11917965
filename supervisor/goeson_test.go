package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

func init() {
	// A keeper, and supervisors that have no descriptor left while TEST_DIR/starve is
	// there. They leave their pids and failures in TEST_DIR.
	roles["starving"] = func() {
		dir := os.Getenv("TEST_DIR")
		k, err := Attach()
		if err == nil && k == nil {
			code, err := Keep(os.Args, slog.New(slog.NewTextHandler(os.Stderr, nil)), Care{})
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			os.Exit(code)
		}
		if err != nil {
			os.Exit(90)
		}
		note(filepath.Join(dir, "pids"), fmt.Sprint(os.Getpid()))
		s := New(Config{Keeper: k, Load: func() (*units.Set, error) { return units.Load(dir) }, RuntimeDir: filepath.Join(dir, "run"),
			Log: slog.New(slog.NewTextHandler(k, nil))})
		if _, err := os.Stat(filepath.Join(dir, "starve")); err == nil {
			s.keeper = starving{s.keeper}
		}
		ctx, cancel := context.WithCancelCause(context.Background())
		go func() { cancel(fmt.Errorf("signal: %v", <-k.Orders())) }()
		if err := s.Run(ctx); err != nil {
			var limit unix.Rlimit
			unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
			limit.Cur = limit.Max // to say so
			unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
			note(filepath.Join(dir, "failures"), err.Error())
			k.Bye(1)
			os.Exit(1)
		}
		k.Bye(0)
	}
}

// Once it has said what there is, starving leaves no descriptor.
type starving struct{ keeper.Keeper }

func (k starving) Inventory() (keeper.Inventory, error) {
	inv, err := k.Keeper.Inventory()
	next, full := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if full == nil {
		unix.Close(next)
		var limit unix.Rlimit
		unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
		limit.Cur = uint64(next)
		unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
	return inv, err
}

func linesOf(name string) []string {
	text, _ := os.ReadFile(name)
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

// A supervisor that cannot go on where another had left off says no Bye: services are
// not ended for want of a descriptor. One that cannot begin at all does.
func TestServicesOutliveSupervisorsThatCannotBegin(t *testing.T) {
	grow := func(t *testing.T, starve bool) (f *fixture, cmd *exec.Cmd, ended chan struct{}) {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		f = &fixture{t: t, dir: t.TempDir()}
		f.write("web", "[service]\nrole = serve\nready = \"notify\"\nstart = \"boot\"\n[socket.http]\nlisten = \"unix://./web.sock\"\n")
		if starve {
			writeFile(t, filepath.Join(f.dir, "starve"), "")
		}
		var log bytes.Buffer
		cmd = exec.Command(exe)
		cmd.Env = append(os.Environ(), "TEST_ROLE=starving", "TEST_DIR="+f.dir)
		cmd.Stderr = &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended = make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		t.Cleanup(func() {
			cmd.Process.Signal(syscall.SIGTERM)
			<-ended
			if t.Failed() {
				t.Log(log.String())
			}
		})
		return f, cmd, ended
	}
	t.Run("later", func(t *testing.T) {
		f, _, _ := grow(t, false)
		pids, failures := filepath.Join(f.dir, "pids"), filepath.Join(f.dir, "failures")
		call := func() answer {
			t.Helper()
			var a answer
			waitFor(t, "an answer", func() (ok bool) {
				var err error
				a, err = ask("unix", filepath.Join(f.dir, "web.sock"))
				return err == nil
			})
			return a
		}
		before := call()
		waitFor(t, "the control socket", func() bool {
			_, err := NewClient(filepath.Join(f.dir, "run")).Units(t.Context())
			return err == nil
		})
		writeFile(t, filepath.Join(f.dir, "starve"), "")
		var pid int
		fmt.Sscan(linesOf(pids)[0], &pid)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "three that cannot begin", func() bool { return len(linesOf(failures)) >= 3 })
		if err := os.Remove(filepath.Join(f.dir, "starve")); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "one that can", func() bool {
			_, err := NewClient(filepath.Join(f.dir, "run")).Units(t.Context())
			return err == nil
		})
		if after := call(); after != before {
			t.Errorf("%+v serves, not %+v", after, before)
		}
		all := linesOf(failures)
		if !strings.Contains(all[0], "too many open files") {
			t.Errorf("%v", all)
		}
		t.Logf("promise N5: %d supervisors could not begin (%s), and the service that ran before them runs", len(all), all[0])
	})
	t.Run("at first", func(t *testing.T) {
		f, cmd, ended := grow(t, true)
		<-ended
		if all := linesOf(filepath.Join(f.dir, "failures")); cmd.ProcessState.ExitCode() != 1 || len(all) != 1 {
			t.Errorf("exit code %d after %v", cmd.ProcessState.ExitCode(), all)
		}
	})
}
