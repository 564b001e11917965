package supervisor

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

func init() { roles["gated"] = gated }

// gated is a service with a readiness gate: socket 3 answers as serve does, and the
// socket called ready as the gate wants it. What it says there is in the file that
// TEST_HEALTH names: a status of HTTP, or "accept", or "wait". Each question is a
// line on the output: "asked N".
func gated() {
	term := catchTERM()
	notify("READY=1") // counts for nothing
	var lns []net.Listener
	for i, name := range strings.Split(os.Getenv("LISTEN_FDNAMES"), ":") {
		ln, err := net.FileListener(os.NewFile(uintptr(3+i), name))
		if err != nil {
			fmt.Fprintln(os.Stderr, "listener:", err)
			os.Exit(96)
		}
		if name != "ready" {
			lns = append(lns, ln)
			served.Go(func() { acceptLoop(ln) })
			continue
		}
		go answerGate(ln)
	}
	<-term
	for _, ln := range lns {
		ln.Close()
	}
	served.Wait()
}

func answerGate(ln net.Listener) {
	var asked atomic.Int64
	switch health() {
	case "wait":
		awaitHealth("accept")
		fallthrough
	case "accept":
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Printf("asked %d\n", asked.Add(1))
			c.Close()
		}
	}
	http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Printf("asked %d: %s %s %s\n", asked.Add(1), r.Method, r.URL, r.Host)
		code := 0
		fmt.Sscan(health(), &code)
		if code == 0 {
			<-r.Context().Done() // no answer
			return
		}
		w.WriteHeader(code)
	}))
}

func health() string {
	text, _ := os.ReadFile(os.Getenv("TEST_HEALTH"))
	return strings.TrimSpace(string(text))
}

// awaitHealth waits until the file says so.
func awaitHealth(want string) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, os.Getenv("TEST_HEALTH"), unix.IN_CLOSE_WRITE)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "inotify:", err)
		os.Exit(95)
	}
	for health() != want {
		unix.Read(fd, make([]byte, 4096))
	}
}
