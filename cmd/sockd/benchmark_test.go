package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The benchmarks run sockd as it is run, in two processes, and the floor beside it:
// a supervisor in C that does the least there is to do. Both are measured in turn.
//
//	go test ./cmd/sockd -run '^$' -bench . -benchtime 300x

// BenchmarkActivation: from connect to the first byte of a service that is not there
// yet. Each iteration is a service of its own.
func BenchmarkActivation(b *testing.B) {
	_, service := floorPrograms(b)
	floorAt := startFloor(b, "demand", b.N, preparedCgroups(b, b.N), "", "once")
	r, at := startUnits(b, b.N, fmt.Sprintf("[service]\nexec = [%q, \"once\"]\n[socket.s]\nlisten = \"tcp://127.0.0.1:PORT\"\n", service))
	r.up(b)
	var ours, floor timing
	measure := func(at unix.Sockaddr, t *timing) {
		began := time.Now()
		if firstLine(b, at) == 0 {
			b.Fatal("not served")
		}
		*t = append(*t, time.Since(began))
	}
	for i := range b.N {
		measure(floorAt[i], &floor)
		measure(at[i], &ours)
	}
	compare(b, ours, floor)
}

// BenchmarkKilled: from the SIGKILL of a service to the next byte served.
func BenchmarkKilled(b *testing.B) {
	_, service := floorPrograms(b)
	floorAt := startFloor(b, "demand", b.N, preparedCgroups(b, b.N), "")
	r, at := startUnits(b, b.N, fmt.Sprintf("[service]\nexec = [%q]\nrestart = \"always\"\nrestart_delay = \"0s\"\n[socket.s]\nlisten = \"tcp://127.0.0.1:PORT\"\n", service))
	r.up(b)
	var ours, floor timing
	measure := func(pid int, at unix.Sockaddr, t *timing) {
		began := time.Now()
		syscall.Kill(pid, syscall.SIGKILL)
		for next := 0; next == 0 || next == pid; next = firstLine(b, at) {
		} // 0: it was accepted by the dying one
		*t = append(*t, time.Since(began))
	}
	var pids, floorPids []int
	for i := range b.N {
		floorPids = append(floorPids, firstLine(b, floorAt[i]))
		pids = append(pids, firstLine(b, at[i]))
	}
	<-time.After(20 * time.Millisecond) // at once is a restart only of what has been ready for 10 ms
	for i := range b.N {
		measure(floorPids[i], floorAt[i], &floor)
		measure(pids[i], at[i], &ours)
	}
	compare(b, ours, floor)
}

// A census reads the pid of each service that starts out of a FIFO: none of them has
// to wait for the others.
type census struct {
	name  string
	file  *os.File
	lines *bufio.Scanner
}

func newCensus(b *testing.B) *census {
	b.Helper()
	c := &census{name: filepath.Join(b.TempDir(), "census")}
	if err := unix.Mkfifo(c.name, 0o600); err != nil {
		b.Fatal(err)
	}
	var err error
	if c.file, err = os.OpenFile(c.name, os.O_RDWR|syscall.O_NONBLOCK, 0); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.file.Close() })
	c.lines = bufio.NewScanner(c.file)
	return c
}

// take waits for n of them.
func (c *census) take(b *testing.B, n int) (pids []int) {
	b.Helper()
	c.file.SetReadDeadline(time.Now().Add(patience))
	for range n {
		if !c.lines.Scan() {
			b.Fatalf("%d of %d have started: %v", len(pids), n, c.lines.Err())
		}
		pid, _ := strconv.Atoi(c.lines.Text())
		pids = append(pids, pid)
	}
	return pids
}

// BenchmarkThousand: a thousand services started, and all back after all were killed,
// once each. Ours has the reading of a thousand unit files in its start.
func BenchmarkThousand(b *testing.B) {
	const n = 1000
	_, service := floorPrograms(b)
	var floorStarted, floorBack time.Duration
	b.Run("floor", func(b *testing.B) {
		c := newCensus(b)
		cgroups := preparedCgroups(b, n)
		began := time.Now()
		startFloor(b, "always", n, cgroups, "BENCH="+c.name, "-")
		pids := c.take(b, n)
		floorStarted = time.Since(began)
		floorBack = killAll(b, c, pids)
		report(b, floorStarted, floorBack)
	})
	b.Run("sockd", func(b *testing.B) {
		c := newCensus(b)
		r, _ := startUnits(b, n, fmt.Sprintf("[service]\nexec = [%q, \"-\"]\nenvironment = { BENCH = %q }\nrestart = \"always\"\nrestart_delay = \"0s\"\n", service, c.name))
		pids := c.take(b, n)
		started := time.Since(r.began)
		back := killAll(b, c, pids)
		report(b, started, back)
		b.ReportMetric(float64(started)/float64(floorStarted), "started-ratio")
		b.ReportMetric(float64(back)/float64(floorBack), "back-ratio")
	})
}

func report(b *testing.B, started, back time.Duration) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(started.Seconds()*1000, "started-ms")
	b.ReportMetric(back.Seconds()*1000, "back-ms")
}

func killAll(b *testing.B, c *census, pids []int) time.Duration {
	<-time.After(100 * time.Millisecond) // all are ready
	began := time.Now()
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	c.take(b, len(pids))
	return time.Since(began)
}
