package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/sockd/sockd/units"
)

func init() {
	// Was passed a listener, embeds a supervisor, and then looks at what it was passed.
	roles["embedding"] = func() {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		s := New(Config{Units: &units.Set{}, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		select {
		case <-s.started:
		case err := <-ended:
			fmt.Println(err)
			return
		}
		ln, err := net.FileListener(os.NewFile(3, "passed"))
		cancel()
		<-ended
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(ln.Addr(), os.Getenv("LISTEN_FDS"))
	}
}

// A program that embeds a supervisor keeps the sockets that its own manager passed it.
func TestEmbeddingProgramKeepsItsSockets(t *testing.T) {
	passed, address := listenerFile(t)
	got, err := passTo("embedding", "1", passed)
	if want := address + " 1"; err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

// listenerFile is a listener as one is passed, and its address.
func listenerFile(t *testing.T) (file *os.File, address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	if file, err = ln.(*net.TCPListener).File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file, ln.Addr().String()
}

// passTo returns what a role says that is passed files and promised so many.
func passTo(role, promised string, files ...*os.File) (said string, err error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(exe)
	cmd.ExtraFiles = files
	cmd.Env = append(os.Environ(), "TEST_ROLE="+role, "LISTEN_FDS="+promised)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
