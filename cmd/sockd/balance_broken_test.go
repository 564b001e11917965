package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sockd/sockd/activation"
	"github.com/sockd/sockd/supervisor"
)

func init() {
	// New versions that do not work.
	switch os.Getenv("TEST_BALANCE_BROKEN") {
	case "silent":
		<-time.After(time.Hour)
	case "dies":
		activation.Ready()
		os.Exit(7)
	}
}

// Point 6: a new version that never becomes ready, one that becomes ready and dies, and one
// that cannot be executed. Each leaves the old one serving, nobody is lost, and the exit
// code is 6.
func TestBalanceBrokenVersions(t *testing.T) {
	exe, err := serviceInGo()
	if err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	unit := func(keys, exec, broken string) string {
		return fmt.Sprintf("[service]\nexec = [%q]\nready = \"notify\"\nstart = \"boot\"\ninstances = 4\n%s\nenvironment = { TEST_BALANCE = %q, TEST_BALANCE_BROKEN = %q }\n"+
			"[socket.x]\nlisten = \"tcp://127.0.0.1:0\"\nper_instance = true\n", exec, keys, map[bool]string{true: "tcp"}[broken == ""], broken)
	}
	write(t, dir, "web.toml", unit("", exe, ""))
	r := start(t, dir, "run", "web.toml")
	client := supervisor.NewClient(filepath.Join(dir, "run"))
	for range 4 {
		r.line(" ready")
	}
	status := func() supervisor.UnitStatus {
		t.Helper()
		st, err := client.Unit(t.Context(), "web")
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	before := status()
	var answered, lost atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if text, err := served("tcp", before.Sockets[0].Address); err != nil || text == "" {
					lost.Add(1)
					t.Errorf("lost: %q, %v", text, err)
				} else {
					answered.Add(1)
				}
			}
		})
	}
	for _, c := range []struct{ name, keys, exec, broken, because string }{
		{"never ready", `start_timeout = "300ms"`, exe, "silent", "start timeout 300ms"},
		{"ready and dead", `overlap_time = "1h"`, exe, "dies", "exit status 7"},
		{"no such program", "", dir + "/gone", "", "no such file or directory"},
	} {
		write(t, dir, "web.toml", unit(c.keys, c.exec, c.broken))
		if _, stderr, code := sockd(t, dir, "reload"); code != 0 {
			t.Fatalf("%s: reload: %d %s", c.name, code, stderr)
		}
		r.line("replacement failed: .*" + c.because) // a reload replaces by itself
		_, stderr, code := sockd(t, dir, "restart", "web")
		if code != exitRolledBack || !strings.Contains(stderr, c.because) {
			t.Errorf("%s: code %d, want %d and %q in\n%s", c.name, code, exitRolledBack, c.because, stderr)
		}
		for i, in := range status().Instances {
			if len(in.Runs) != 1 || in.Runs[0].Pid != before.Instances[i].Runs[0].Pid || in.Runs[0].State != "ready" {
				t.Errorf("%s: %+v", c.name, in)
			}
		}
	}
	close(stop)
	wg.Wait()
	t.Logf("promise N2: %s: %d connections while new versions of 4 siblings were never ready, ready and dead, and no program at all: %d lost", before.Sockets[0].Steering, answered.Load(), lost.Load())
}
