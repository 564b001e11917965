package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The services of the chaos test: the test binary with CHAOS_DIR set. Each leaves
// facts in that folder, so that what sockd says can be compared with what was:
//
//	births            a line for each process: unit instance gen pid
//	violations        what must never happen
//	lock.web@1.a      locked by the process that is there
//	lines.web.7       how many lines generation 7 has written, 8 bytes
type chaosService struct {
	dir, unit, instance, gen string
	lines                    time.Duration // between two lines; 0: none
	life                     time.Duration // at most, if not 0; then it ends by itself
	pair                     bool          // two may be there, during a replacement
	stop                     chan struct{}
	busy                     sync.WaitGroup
	leaving                  atomic.Bool
}

func runChaosService() {
	duration := func(name string) time.Duration { d, _ := time.ParseDuration(os.Getenv(name)); return d }
	s := &chaosService{dir: os.Getenv("CHAOS_DIR"), unit: os.Getenv("SOCKD_UNIT"), instance: os.Getenv("SOCKD_INSTANCE"),
		gen: os.Getenv("SOCKD_GENERATION"), lines: duration("CHAOS_LINES"), life: duration("CHAOS_LIFE"),
		pair: os.Getenv("CHAOS_PAIR") != "", stop: make(chan struct{})}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	s.note("births", fmt.Sprintf("%s %s %s %d", s.unit, s.instance, s.gen, os.Getpid()))
	s.lock()
	var listeners []net.Listener
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	for fd := 3; fd < 3+n; fd++ {
		ln, err := net.FileListener(os.NewFile(uintptr(fd), ""))
		if err != nil {
			s.violation("listener: " + err.Error())
		}
		listeners = append(listeners, ln)
		s.busy.Go(func() { s.serve(ln) })
	}
	if s.lines > 0 {
		s.busy.Go(s.write)
	}
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		s.violation("notify: " + err.Error())
	}
	io.WriteString(c, "READY=1\nSTATUS=serving")
	code := 0
	var over <-chan time.Time
	if s.life > 0 {
		over = time.After(rand.N(s.life))
	}
	select {
	case <-term:
	case <-over:
		code = 1 + rand.IntN(50)
	}
	s.leaving.Store(true)
	for _, ln := range listeners {
		if u, ok := ln.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		ln.Close()
	}
	close(s.stop)
	s.busy.Wait()
	os.Exit(code)
}

// note adds a line to a file, in one write.
func (s *chaosService) note(file, line string) {
	fd, err := unix.Open(filepath.Join(s.dir, file), unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		os.Exit(71)
	}
	unix.Write(fd, []byte(line+"\n"))
	unix.Close(fd)
}

func (s *chaosService) violation(text string) {
	s.note("violations", fmt.Sprintf("%s@%s gen %s pid %d: %s", s.unit, s.instance, s.gen, os.Getpid(), text))
	os.Exit(70)
}

// lock takes the instance's place, which nobody may have; two may in a replacement.
func (s *chaosService) lock() {
	places := []string{"a"}
	if s.pair {
		places = append(places, "b")
	}
	for _, p := range places {
		fd, err := unix.Open(lockFile(s.dir, s.unit, s.instance, p), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
		if err == nil && unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			return // held until the process ends
		}
	}
	s.violation("one copy too many")
}

func lockFile(dir, unit, instance, place string) string {
	return filepath.Join(dir, "lock."+unit+"@"+instance+"."+place)
}

// serve answers each connection with "UNIT INSTANCE GEN PID\n" and closes it.
func (s *chaosService) serve(ln net.Listener) {
	answer := fmt.Sprintf("%s %s %s %d\n", s.unit, s.instance, s.gen, os.Getpid())
	for {
		c, err := ln.Accept()
		if err != nil {
			if !s.leaving.Load() {
				s.violation("accept: " + err.Error())
			}
			return
		}
		s.busy.Go(func() {
			defer c.Close()
			io.WriteString(c, answer)
		})
	}
}

// write writes numbered lines, every tenth one in two pieces, and counts them.
func (s *chaosService) write() {
	fd, err := unix.Open(linesFile(s.dir, s.unit, s.gen), unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		s.violation(err.Error())
	}
	tick := time.NewTicker(s.lines)
	for n := uint64(1); ; n++ {
		line := []byte(fmt.Sprintf("line %d\n", n))
		if n%10 == 0 {
			unix.Write(1, line[:3])
			line = line[3:]
		}
		if got, err := unix.Write(1, line); got != len(line) {
			s.violation(fmt.Sprint("line: ", got, " ", err))
		}
		unix.Pwrite(fd, binary.LittleEndian.AppendUint64(nil, n), 0)
		select {
		case <-tick.C:
		case <-s.stop:
			return
		}
	}
}

func linesFile(dir, unit, gen string) string { return filepath.Join(dir, "lines."+unit+"."+gen) }
