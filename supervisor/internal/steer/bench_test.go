package steer

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// here runs a benchmark on a thread of its own, which ends with it.
func here(b *testing.B, name string, run func(b *testing.B)) {
	b.Run(name, func(b *testing.B) {
		namespace(b)
		migration(b, true)
		run(b)
	})
}

// BenchmarkSet drains a place and brings it back.
func BenchmarkSet(b *testing.B) {
	for _, level := range []Level{EBPF, ClassicBPF, Hash} {
		for _, places := range []int{4, 64} {
			here(b, fmt.Sprintf("%s/%d", level, places), func(b *testing.B) {
				w := newWorldHere(b, "tcp4", places, level, Options{})
				weights := make([]int, places)
				for i := range weights {
					weights[i] = 1
				}
				for i := 0; b.Loop(); i++ {
					weights[1] = i % 2
					if err := ignoreUnsteered(w.g.Set(weights)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkFlush moves a queue of so many to three other places.
func BenchmarkFlush(b *testing.B) {
	for _, level := range []Level{EBPF, ClassicBPF, Hash} {
		for _, queue := range []int{0, 50} {
			here(b, fmt.Sprintf("%s/%d", level, queue), func(b *testing.B) {
				w := newWorldHere(b, "tcp4", 4, level, Options{})
				queued := 0
				b.ResetTimer()
				for range b.N {
					b.StopTimer()
					if queue > 0 {
						must(b, ignoreUnsteered(w.g.Set([]int{0, 1, 0, 0})))
						w.connect(queue)
					}
					must(b, ignoreUnsteered(w.g.Set([]int{1, 0, 1, 1})))
					kernel{}.wait(Settle) // is the caller's time, not Flush's
					queued += w.waiting(1)
					b.StartTimer()
					if err := w.g.Flush(1); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					if queue > 0 {
						w.serve(queue)
					}
					b.StartTimer()
				}
				b.ReportMetric(float64(queued)/float64(b.N), "moved/op")
			})
		}
	}
}

// BenchmarkConnections is a client that connects, is accepted, answered and closes,
// over four sockets: 100 at a time at each level in turns, so that the noise of the
// machine is the same for all. floor is the kernel's hash with no program.
func BenchmarkConnections(b *testing.B) {
	here(b, "4", func(b *testing.B) {
		levels := []Level{Hash, ClassicBPF, EBPF}
		var worlds []*kernelWorld
		for _, level := range levels {
			w := newWorldHere(b, "tcp4", 4, level, Options{})
			must(b, w.g.Set([]int{1, 1, 1, 1}))
			worlds = append(worlds, w)
		}
		took := make([]time.Duration, len(levels))
		for range b.N {
			for i, w := range worlds {
				begin := time.Now()
				w.connect(100)
				w.serve(100)
				took[i] += time.Since(begin)
			}
		}
		for i, level := range levels {
			b.ReportMetric(float64(100*b.N)/took[i].Seconds(), level.String()+"-conn/s")
			b.ReportMetric(took[i].Seconds()/took[0].Seconds(), level.String()+"/floor")
		}
	})
}

// BenchmarkDatagrams is the same for udp, where every datagram runs the program.
func BenchmarkDatagrams(b *testing.B) {
	here(b, "4", func(b *testing.B) {
		settings := []struct {
			name   string
			level  Level
			sticky bool
		}{{"hash", Hash, false}, {"classic-bpf", ClassicBPF, false}, {"ebpf", EBPF, false}, {"ebpf-sticky", EBPF, true}}
		senders, sockets := make([]int, len(settings)), make([][]int, len(settings))
		for i, s := range settings {
			a := addressOf("udp4")
			for range 4 {
				sockets[i] = append(sockets[i], a.socket(b))
			}
			g, err := Open(sockets[i], s.level, Options{Sticky: s.sticky})
			must(b, err)
			b.Cleanup(func() { g.Close() })
			need(b, g, s.level)
			senders[i], err = a.dial(0)
			must(b, err)
			b.Cleanup(func() { unix.Close(senders[i]) })
		}
		took := make([]time.Duration, len(settings))
		var buf [16]byte
		for range b.N {
			for i := range settings {
				begin := time.Now()
				for range 100 {
					if _, err := unix.Write(senders[i], buf[:]); err != nil {
						b.Fatal(err)
					}
				}
				took[i] += time.Since(begin)
				drain(sockets[i])
			}
		}
		for i, s := range settings {
			b.ReportMetric(float64(took[i].Nanoseconds())/float64(100*b.N), s.name+"-ns")
		}
	})
}

func drain(fds []int) {
	var buf [16]byte
	for _, fd := range fds {
		for {
			if _, _, err := unix.Recvfrom(fd, buf[:], 0); err != nil {
				break
			}
		}
	}
}

// BenchmarkOpen is what a group costs at start.
func BenchmarkOpen(b *testing.B) {
	for _, level := range []Level{EBPF, ClassicBPF, Hash} {
		here(b, level.String(), func(b *testing.B) {
			a := addressOf("tcp4")
			var fds []int
			for range 4 {
				fds = append(fds, a.socket(b))
			}
			for b.Loop() {
				g, err := Open(fds, level, Options{})
				must(b, err)
				need(b, g, level)
				b.StopTimer()
				must(b, g.Close())
				b.StartTimer()
			}
		})
	}
}
