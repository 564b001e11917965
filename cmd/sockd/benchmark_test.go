package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
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
	floorAt := startFloor(b, "demand", b.N, "", "once")
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
	floorAt := startFloor(b, "demand", b.N, "")
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

// A census hears the pid of each service that starts.
type census struct {
	name string
	conn *net.UnixConn
}

func newCensus(b *testing.B, who string) *census {
	b.Helper()
	c := &census{name: fmt.Sprintf("sockd-census-%d-%s", os.Getpid(), who)}
	var err error
	if c.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: "@" + c.name}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.conn.Close() })
	return c
}

// take waits for n of them.
func (c *census) take(b *testing.B, n int) (pids []int) {
	b.Helper()
	c.conn.SetReadDeadline(time.Now().Add(patience))
	text := make([]byte, 32)
	for range n {
		k, err := c.conn.Read(text)
		if err != nil {
			b.Fatalf("%d of %d have started: %v", len(pids), n, err)
		}
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:k])))
		pids = append(pids, pid)
	}
	return pids
}

// BenchmarkThousand: a thousand services started, and all back after all were killed.
// The start of ours has the reading of a thousand unit files in it.
func BenchmarkThousand(b *testing.B) {
	const n = 1000
	_, service := floorPrograms(b)
	var started, back, floorStarted, floorBack timing
	for i := range b.N {
		b.Run("", func(b *testing.B) { // for the end of both
			floor := newCensus(b, fmt.Sprint("floor", i))
			began := time.Now()
			startFloor(b, "always", n, "BENCH="+floor.name, "-")
			pids := floor.take(b, n)
			floorStarted = append(floorStarted, time.Since(began))
			floorBack = append(floorBack, killAll(b, floor, pids))
		})
		b.Run("", func(b *testing.B) {
			ours := newCensus(b, fmt.Sprint("ours", i))
			r, _ := startUnits(b, n, fmt.Sprintf("[service]\nexec = [%q, \"-\"]\nenvironment = { BENCH = %q }\nrestart = \"always\"\nrestart_delay = \"0s\"\n", service, ours.name))
			pids := ours.take(b, n)
			started = append(started, time.Since(r.began))
			back = append(back, killAll(b, ours, pids))
		})
	}
	for _, m := range []struct {
		name        string
		ours, floor timing
	}{{"started", started, floorStarted}, {"back", back, floorBack}} {
		b.ReportMetric(m.ours.at(0.5).Seconds()*1000, m.name+"-ms")
		b.ReportMetric(m.floor.at(0.5).Seconds()*1000, m.name+"-floor-ms")
		b.ReportMetric(float64(m.ours.at(0.5))/float64(m.floor.at(0.5)), m.name+"-ratio")
	}
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
