package sys

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Ten thousand sockets bound, listening and watched, beside a bare loop of socket,
// bind and listen in the same run: "ratio" is how many times as long ours takes.
func BenchmarkTenThousandSockets(b *testing.B) {
	const many = 10_000
	needDescriptors(b, many+1000)
	for _, row := range []struct {
		name, network string
		address       func(dir string, i int) string
		bare          func(dir string, i int) (int, unix.Sockaddr)
	}{
		{"tcp4", "tcp", func(string, int) string { return "127.0.0.1:0" },
			func(string, int) (int, unix.Sockaddr) {
				return unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
			}},
		{"dual stack", "tcp", func(string, int) string { return ":0" },
			func(string, int) (int, unix.Sockaddr) { return unix.AF_INET6, &unix.SockaddrInet6{} }},
		{"unix", "unix", func(dir string, i int) string { return fmt.Sprintf("%s/%d", dir, i) },
			func(dir string, i int) (int, unix.Sockaddr) {
				return unix.AF_UNIX, &unix.SockaddrUnix{Name: fmt.Sprintf("%s/bare%d", dir, i)}
			}},
	} {
		b.Run(row.name, func(b *testing.B) {
			dir := b.TempDir()
			var bare, ours time.Duration
			for b.Loop() {
				for _, loop := range []func(sub string){
					func(sub string) {
						bare += bareLoop(b, many, func(i int) (int, unix.Sockaddr) { return row.bare(sub, i) })
					},
					func(sub string) {
						ours += ourLoop(b, many, row.network, func(i int) string { return row.address(sub, i) })
					},
				} {
					sub := filepath.Join(dir, "d") // emptied between, so that neither finds the other's files
					if err := os.Mkdir(sub, 0o700); err != nil {
						b.Fatal(err)
					}
					loop(sub)
					if err := os.RemoveAll(sub); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(ours)/float64(bare), "ratio")
			b.ReportMetric(float64(bare.Nanoseconds())/float64(b.N*many), "bare-ns/socket")
			b.ReportMetric(float64(ours.Nanoseconds())/float64(b.N*many), "ns/socket")
		})
	}
}

func bareLoop(b *testing.B, many int, target func(int) (int, unix.Sockaddr)) time.Duration {
	fds := make([]int, 0, many)
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	begin := time.Now()
	for i := range many {
		family, sa := target(i)
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		fds = append(fds, fd)
		if err := unix.Bind(fd, sa); err != nil {
			b.Fatal(err)
		}
		if err := unix.Listen(fd, 4096); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(begin)
}

func ourLoop(b *testing.B, many int, network string, address func(int) string) time.Duration {
	bound := make([]*Bound, 0, many)
	w, err := NewWatcher()
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		w.Close()
		for _, x := range bound {
			x.close()
		}
	}()
	begin := time.Now()
	for i := range many {
		x, err := Bind(network, address(i), none())
		if err != nil {
			b.Fatal(err)
		}
		bound = append(bound, x)
		if err := w.Arm(x.FD, uint64(i)); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(begin)
}

func BenchmarkQueue(b *testing.B) {
	x := mustBind(b, "tcp", "127.0.0.1:0", none())
	for b.Loop() {
		if _, _, _, err := Queue(x.FD); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadNotify(b *testing.B) {
	fd, address, err := NewNotify()
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	text, to := []byte("READY=1\nSTATUS=serving\nMAINPID=4711"), &unix.SockaddrUnix{Name: address}
	for b.Loop() {
		if err := unix.Sendto(fd, text, 0, to); err != nil {
			b.Fatal(err)
		}
		if _, err := ReadNotify(fd, false); err != nil {
			b.Fatal(err)
		}
	}
}
