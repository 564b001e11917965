package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// outputs starts a sockd whose services write n numbered lines as fast as they can.
func outputs(t *testing.T, w world, n int) (r *running, dir, address string) {
	t.Helper()
	dir = shortDir(t)
	probe := filepath.Join(built(t), "probe")
	write(t, dir, "web.toml", fmt.Sprintf(webUnit, probe))
	write(t, dir, "count.toml", fmt.Sprintf("[service]\nexec = [%q, \"count\", \"%d\"]\nrestart = \"no\"\nstart = \"boot\"\n", probe, n))
	w.Args = append([]string{"run"}, append(w.Args, dir)...)
	return w.start(t, dir), dir, filepath.Join(dir, "s.sock")
}

// While nobody reads the output, services wait in write, everything else goes on, and
// no line is lost.
func TestOutputThatNobodyReads(t *testing.T) {
	const n = 50_000
	out, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r, dir, address := outputs(t, world{stdout: write}, n)
	r.line("web@1 ready")
	eventually(t, "a full pipe", func() bool {
		room, err := unix.Poll([]unix.PollFd{{Fd: int32(write.Fd()), Events: unix.POLLOUT}}, 0)
		return err == nil && room == 0
	})
	write.Close()
	for range 3 {
		if _, err := served("unix", address); err != nil {
			t.Fatal(err)
		}
	}
	if out, errs, code := verb(t, dir, "restart", "web"); code != 0 {
		t.Fatalf("restart: %d %s%s", code, out, errs)
	}
	if st := statusOf(t, dir, "count"); st.Instances[0].State != "ready" {
		t.Errorf("count is %s", st.Instances[0].State)
	}
	next, ended := 0, make(chan struct{})
	go func() {
		defer close(ended)
		for sc := bufio.NewScanner(out); next < n && sc.Scan(); {
			if _, line, ok := strings.Cut(sc.Text(), "| line "); ok {
				if line != fmt.Sprint(next) {
					t.Errorf("line %s, want %d", line, next)
					return
				}
				next++
			}
		}
		out.Close()
	}()
	<-ended
	r.signal(unix.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	t.Logf("promise N6: %d of %d lines in order after nobody had read for a while", next, n)
}

// An output that refuses lines, be it closed or on a full disk, is said, and stops
// nothing.
func TestOutputThatRefuses(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	closed, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for name, stdout := range map[string]*os.File{"full disk": full, "closed pipe": write} {
		t.Run(name, func(t *testing.T) {
			r, dir, address := outputs(t, world{stdout: stdout}, 1000)
			r.line("output lost")
			exercise(t, r, dir, address)
		})
	}
	write.Close()
}

// Nobody hears sockd's own log: it goes on all the same.
func TestLogThatNobodyHears(t *testing.T) {
	closed, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	r, dir, address := outputs(t, world{stdout: write, stderr: write}, 1000)
	write.Close()
	eventually(t, "a service", func() bool { _, err := served("unix", address); return err == nil })
	exercise(t, r, dir, address)
}

// Somebody removes the runtime folder, or a part of it: it is made again.
func TestRuntimeFolderRemoved(t *testing.T) {
	for _, what := range []string{"", "control.sock", "lock", "runs", "sockets"} {
		t.Run(filepath.Join("run", what), func(t *testing.T) {
			r, dir, address := web(t, world{})
			r.line("web@1 ready")
			run := filepath.Join(dir, "run")
			for range 2 {
				if err := os.RemoveAll(filepath.Join(run, what)); err != nil && what != "" {
					t.Fatal(err)
				} // the whole folder may come back before it is quite gone
				r.line("runtime folder restored")
				for _, name := range []string{"runs", "sockets"} { // by which a start finds what a killed keeper has left
					eventually(t, name, func() bool {
						text, _ := os.ReadFile(filepath.Join(run, name))
						return strings.Contains(string(text), `"web"`)
					})
				}
			}
			if what == "" || what == "lock" { // it takes two seconds
				if out, errs, code := verb(t, dir, "run", filepath.Join(dir, "web.toml")); code != exitFailed || !strings.Contains(errs, "in use by sockd") {
					t.Errorf("a second sockd: %d %s%s", code, out, errs)
				}
			}
			exercise(t, r, dir, address)
			if _, err := os.Lstat(run); err == nil {
				t.Error("left over: the runtime folder")
			}
		})
	}
}

// With no room for anything in the runtime folder, everything works that does not
// need any.
func TestRuntimeFolderFull(t *testing.T) {
	needNamespaces(t)
	dir := shortDir(t)
	write(t, dir, "web.toml", fmt.Sprintf(webUnit, filepath.Join(built(t), "probe")))
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	w := world{Namespaces: unix.CLONE_NEWNS, Full: filepath.Join(dir, "run"), Args: []string{"run", "--runtime-dir", filepath.Join(dir, "run"), dir}}
	r := w.start(t, dir)
	r.line("sockets not on record")
	r.line("web@1 ready")
	address := filepath.Join(dir, "s.sock")
	for range 3 {
		if _, err := served("unix", address); err != nil {
			t.Fatal(err)
		}
	}
	r.signal(unix.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("ended with %d; it said\n%s", code, r.said())
	}
}
