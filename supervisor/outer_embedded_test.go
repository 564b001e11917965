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
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	passed, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.ExtraFiles = []*os.File{passed}
	cmd.Env = append(os.Environ(), "TEST_ROLE=embedding", "LISTEN_FDS=1")
	out, err := cmd.CombinedOutput()
	if got, want := strings.TrimSpace(string(out)), ln.Addr().String()+" 1"; err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}
