package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sockd/sockd/supervisor"
	"golang.org/x/sys/unix"
)

// What a killed keeper has left can neither be adopted nor ended without pidfds: then
// nothing is started beside it.
func TestOrphansWithoutPidfd(t *testing.T) {
	w := world{Answers: map[string]int{"pidfd_open": int(unix.ENOSYS), "pidfd_send_signal": int(unix.ENOSYS)}}
	r, dir, _ := web(t, w)
	r.line("web@1 ready")
	c := supervisor.NewClient(filepath.Join(dir, "run"))
	u, err := c.Unit(t.Context(), "web")
	if err != nil || len(u.Instances[0].Runs) != 1 {
		t.Fatalf("%+v, %v", u, err)
	}
	service, err := os.FindProcess(u.Instances[0].Runs[0].Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer service.Kill()
	r.signal(unix.SIGKILL)
	<-r.ended
	w.Args = []string{"run", dir}
	for range 2 { // the first has left everything to the second
		r = w.start(t, dir)
		if code := r.wait(); code != exitFailed || !strings.Contains(r.said(), "it takes pidfd") {
			t.Fatalf("ended with %d; it said\n%s", code, r.said())
		}
	}
	if service.Signal(unix.Signal(0)) != nil {
		t.Error("the service has ended")
	}
}
