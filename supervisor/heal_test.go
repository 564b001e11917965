package supervisor

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A Unix socket that was made anew, since somebody had shut it down, is known to the next
// supervisor too, with its path.
func TestSocketMadeAgainIsKnownAfterACrash(t *testing.T) {
	f := newFixture(t, "web", "[service]\nrole = serve\nready = \"notify\"\n[socket.http]\nlisten = \"unix://./web.sock\"\n")
	if err := f.s.ask(t.Context(), func() error {
		return unix.Shutdown(f.s.units["web"].sockets[0].fd, unix.SHUT_RDWR)
	}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a new one", func() bool { return strings.Contains(f.log.String(), "listening again") })
	f.crash()
	f.start()
	if k := f.unit("web").Sockets[0]; k.Error != "" {
		t.Errorf("nobody can reach it: %s", k.Error)
	}
	if _, err := ask("unix", filepath.Join(f.dir, "web.sock")); err != nil {
		t.Error(err)
	}
	if text := f.log.String(); strings.Contains(text, "path lost") || strings.Contains(text, "path restored") {
		t.Error("its path was taken for another's")
	}
}

// Whoever has shut down the socket of an instance is a process of that instance, alive or not.
func TestWhoMayHaveShutASocketDown(t *testing.T) {
	f := newFixture(t, "web", fmt.Sprintf(siblings, "", 3, "restart = \"no\""))
	f.do("start", "web", Done)
	pid := f.unit("web").Instances[1].Runs[0].Pid
	who := func() (name string) {
		t.Helper()
		if err := f.s.ask(t.Context(), func() error { name = f.s.units["web"].lastRun(2); return nil }); err != nil {
			t.Fatal(err)
		}
		return name
	}
	want := fmt.Sprintf("web@2.2 (pid %d)", pid)
	if name := who(); name != want {
		t.Errorf("%s, want %s", name, want)
	}
	kill(t, pid)
	f.awaitState("web", 2, "exited")
	if name := who(); name != want {
		t.Errorf("it has ended: %s, want %s", name, want)
	}
}
