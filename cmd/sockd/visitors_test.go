package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Hundreds ask something at the control socket and stay, with few descriptors to be had:
// they make way for those who come after them, and for services.
func TestFaultVisitors(t *testing.T) {
	const limit, visitors = 300, 600
	r, dir, address := web(t, world{Limits: map[int]uint64{unix.RLIMIT_NOFILE: limit}})
	r.line("web@1 ready")
	for i := range visitors {
		c, err := net.Dial("unix", filepath.Join(dir, "run", "control.sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second)) // half of what a visitor may stay who is in nobody's way
		fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: sockd\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatalf("visitor %d: %v", i, err)
		}
	}
	begun := time.Now()
	statusOf(t, dir, "web")
	took := time.Since(begun)
	exercise(t, r, dir, address)
	t.Logf("promise N9: with %d descriptors and %d connections to the control socket, status was answered after %v", limit, visitors, took.Round(100*time.Microsecond))
}
