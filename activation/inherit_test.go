package activation

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// inspect prints what a program started by this process would inherit.
func inspect() error {
	if _, err := Names(); err != nil {
		return err
	}
	for _, name := range variables {
		if value, ok := os.LookupEnv(name); ok {
			fmt.Println("left:", name, value)
		}
	}
	for fd := firstFD; fd < firstFD+6; fd++ {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			fmt.Println("inherited:", fd, err)
		}
	}
	return nil
}

func TestNothingIsInherited(t *testing.T) {
	s := listenAll(t)
	pidfd := fmt.Sprint("LISTEN_PIDFDID=", 1)
	if got := start(t, "inspect", s.files, "LISTEN_PID=self", "LISTEN_FDS=6", socketNames).rest(t); got != "" {
		t.Error(got)
	}
	// Another's pidfd: not ours, even with our pid.
	if id := ownPidfdID(); id > 1 {
		got := start(t, "inspect", s.files, "LISTEN_PID=self", "LISTEN_FDS=6", pidfd).rest(t)
		if !strings.Contains(got, ErrNotActivated.Error()) {
			t.Error(got)
		}
	}
}

func TestConcurrentAsksGetEachOnce(t *testing.T) {
	s := listenAll(t)
	c := start(t, "crowd", s.files, "LISTEN_PID=self", "LISTEN_FDS=6", "LISTEN_FDNAMES=a:a:a:d:d:a")
	if got := c.rest(t); got != "listeners 4 packets 2\n" || !c.ProcessState.Success() { // the race detector's exit status is 66
		t.Errorf("%v: %s", c.ProcessState, got)
	}
}

// crowd asks from many goroutines at once.
func crowd() error {
	var mu sync.Mutex
	var listeners, packets int
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			_, errL := Listen(context.Background(), "a", "tcp", "")
			_, errP := ListenPacket(context.Background(), "d", "udp", "")
			mu.Lock()
			defer mu.Unlock()
			if errL == nil {
				listeners++
			}
			if errP == nil {
				packets++
			}
		})
	}
	wg.Wait()
	fmt.Println("listeners", listeners, "packets", packets)
	return nil
}

// closing prints how many descriptors this process has of its one socket: while it
// is not handed out, when it is, and after it was closed.
func closing() error {
	name, err := os.Readlink("/proc/self/fd/3")
	if err != nil {
		return err
	}
	count := func() (n int) {
		links, _ := filepath.Glob("/proc/self/fd/*")
		for _, link := range links {
			if to, _ := os.Readlink(link); to == name {
				n++
			}
		}
		return n
	}
	if _, err := Names(); err != nil {
		return err
	}
	passed := count()
	ls, err := Listeners("a")
	if err != nil {
		return err
	}
	taken := count()
	ls[0].Close()
	fmt.Println(passed, taken, count())
	return nil
}

func TestClosingAListenerReallyCloses(t *testing.T) {
	s := listenAll(t)
	if got := start(t, "closing", s.files[:1], "LISTEN_PID=self", "LISTEN_FDS=1", "LISTEN_FDNAMES=a").rest(t); got != "1 1 0\n" {
		t.Errorf("got %q", got)
	}
}

// liedTo was promised more than it was given, and uses what it has by itself.
func liedTo() error {
	_, err := Names()
	runtime.GC()
	runtime.GC() // the second one begins when what the first has found is closed
	_, errOpen := unix.FcntlInt(firstFD, unix.F_GETFD, 0)
	fmt.Println(err != nil, errOpen)
	return nil
}

func TestWhatWasRefusedStaysOpen(t *testing.T) {
	s := listenAll(t)
	if got := start(t, "liedTo", s.files[:1], "LISTEN_PID=self", "LISTEN_FDS=40").rest(t); got != "true <nil>\n" {
		t.Errorf("got %q", got)
	}
}
