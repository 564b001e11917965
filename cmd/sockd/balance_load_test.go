package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A volley is connections that come at a fixed rate, whatever becomes of those
// before: one thread, one epoll, about 25 µs each, so that two cores can hold both it
// and what it measures.
type volley struct {
	Address  string
	Rate     int // a second; 0: so many at once as InFlight, and the next when one has been served
	InFlight int
	Count    int
	Say      string // what a client says first; "" for services that speak first
	NetNS    string // a file: in that network namespace

}

// A tally is what became of them.
type tally struct {
	Served   int
	Took     []uint32       // of those served: connect to first byte, µs
	Lost     map[string]int // never accepted: reset, refused, no answer
	InHand   int            // accepted by a process that then died: it ended without a byte
	Instance map[int]int    // who served
	Elapsed  time.Duration
}

// noAnswer is when a client gives up.
const noAnswer = 15 * time.Second

type caller struct {
	began time.Time
	said  bool
}

// fly lets the volley come and returns what became of it.
func (v *volley) fly(t testing.TB) *tally {
	t.Helper()
	type end struct {
		*tally
		err error
	}
	ended := make(chan end, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread may be in another namespace
		y, err := v.run()
		ended <- end{y, err}
	}()
	e := <-ended
	if e.err != nil {
		t.Fatalf("volley: %v", e.err)
	}
	return e.tally
}

func (v *volley) run() (*tally, error) {
	if v.NetNS != "" {
		if err := enterNetNS(v.NetNS); err != nil {
			return nil, err
		}
	}
	to, err := netip.ParseAddrPort(v.Address)
	if err != nil {
		return nil, err
	}
	sa := &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(ep)
	clock, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer unix.Close(clock)
	due := v.InFlight
	if v.Rate > 0 {
		every := unix.NsecToTimespec(int64(time.Second) / int64(v.Rate))
		if err := unix.TimerfdSettime(clock, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
			return nil, err
		}
		due = 0
	}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, clock, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(clock)}); err != nil {
		return nil, err
	}
	y := &tally{Lost: map[string]int{}, Instance: map[int]int{}, Took: make([]uint32, 0, v.Count)}
	open := map[int]*caller{}
	began, looked := time.Now(), time.Now()
	started := 0
	over := func(fd int) {
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // no TIME_WAIT
		unix.Close(fd)
		delete(open, fd)
		if v.Rate == 0 {
			due++
		}
	}
	events := make([]unix.EpollEvent, 256)
	var buf [256]byte
	for started < v.Count || len(open) > 0 {
		for ; due > 0 && started < v.Count; due-- {
			started++
			c := &caller{began: time.Now()}
			fd, err := v.connect(ep, sa)
			if err == unix.ECONNREFUSED {
				y.Lost["refused"]++
				if v.Rate == 0 {
					due++
				}
				continue
			}
			if err != nil {
				return nil, err
			}
			open[fd] = c
		}
		n, err := unix.EpollWait(ep, events, 100)
		if err != nil && err != unix.EINTR {
			return nil, err
		}
		now := time.Now()
		for _, e := range events[:max(n, 0)] {
			fd := int(e.Fd)
			if fd == clock {
				if n, _ := unix.Read(clock, buf[:8]); n == 8 {
					due += int(binary.NativeEndian.Uint64(buf[:8]))
				}
				continue
			}
			c := open[fd]
			if c == nil {
				continue
			}
			if v.Say != "" && !c.said && e.Events&unix.EPOLLOUT != 0 {
				c.said = true
				unix.Write(fd, []byte(v.Say))
				unix.EpollCtl(ep, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: e.Fd})
			}
			got, err := unix.Read(fd, buf[:])
			switch {
			case err == unix.EAGAIN || err == unix.EINTR:
				continue
			case err == unix.ECONNRESET:
				y.Lost["reset"]++
			case err == unix.ECONNREFUSED:
				y.Lost["refused"]++
			case err != nil:
				y.Lost[err.Error()]++
			case got == 0:
				y.InHand++
			default:
				y.Served++
				y.Took = append(y.Took, uint32(now.Sub(c.began).Microseconds()))
				word, _, _ := bytes.Cut(buf[:got], []byte(" "))
				if i, err := strconv.Atoi(string(word)); err == nil {
					y.Instance[i]++
				}
			}
			over(fd)
		}
		if now.Sub(looked) > time.Second {
			looked = now
			for fd, c := range open {
				if now.Sub(c.began) > noAnswer {
					y.Lost["no answer"]++
					over(fd)
				}
			}
		}
	}
	y.Elapsed = time.Since(began)
	return y, nil
}

func (v *volley) connect(ep int, sa unix.Sockaddr) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, err
	}
	interest := uint32(unix.EPOLLIN)
	if v.Say != "" {
		interest |= unix.EPOLLOUT
	}
	return fd, unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: interest, Fd: int32(fd)})
}

func enterNetNS(file string) error {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return os.NewSyscallError("setns", unix.Setns(fd, unix.CLONE_NEWNET))
}

// add puts another slice of the same measurement to this one.
func (y *tally) add(z *tally) {
	if y.Lost == nil {
		y.Lost, y.Instance = map[string]int{}, map[int]int{}
	}
	y.Served += z.Served
	y.Took = append(y.Took, z.Took...)
	for k, n := range z.Lost {
		y.Lost[k] += n
	}
	y.InHand += z.InHand
	for k, n := range z.Instance {
		y.Instance[k] += n
	}
	y.Elapsed += z.Elapsed
}

func (y *tally) lost() (n int) {
	for _, k := range y.Lost {
		n += k
	}
	return n
}

func (y *tally) all() int { return y.Served + y.lost() + y.InHand }

// at is a quantile of the waits.
func (y *tally) at(q float64) time.Duration {
	if len(y.Took) == 0 {
		return 0
	}
	slices.Sort(y.Took)
	return time.Duration(y.Took[min(int(q*float64(len(y.Took))), len(y.Took)-1)]) * time.Microsecond
}

func (y *tally) losses() string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(y.Lost)) {
		parts = append(parts, fmt.Sprintf("%d %s", y.Lost[k], k))
	}
	return strings.Join(parts, ", ")
}

// ms writes a duration as milliseconds.
func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }
