//go:build amd64 || arm64

package direct

import (
	"bufio"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

var spawns = flag.Int("spawns", 1000, "how many programs the stress test starts")

// Many starts at once from many goroutines, while others allocate, grow and shrink
// their stacks and the garbage collector never rests: each child has its own pid
// and pidfd in its environment, and every start tells of the child it made.
func TestStress(t *testing.T) {
	program, err := exec.LookPath("printenv")
	if err != nil {
		t.Skip(err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	defer noise(4)()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var left atomic.Int64
	left.Store(int64(*spawns))
	var mu sync.Mutex
	want := map[string]int{} // a number may come twice
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				lines, err := printEnv(program, int(w.Fd()))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, line := range lines {
					want[line]++
				}
				mu.Unlock()
			}
		})
	}
	got := make(chan map[string]int)
	go func() {
		lines := map[string]int{}
		for s := bufio.NewScanner(r); s.Scan(); {
			lines[s.Text()]++
		}
		got <- lines
	}()
	wg.Wait()
	w.Close()
	if lines := <-got; !maps.Equal(lines, want) {
		t.Errorf("%d different lines, want %d", len(lines), len(want))
		for line, n := range want {
			if lines[line] != n {
				t.Errorf("%q came %d times, want %d", line, lines[line], n)
			}
		}
	}
}

// printEnv starts a child that prints what it was told of itself, waits for it,
// and returns the lines it should have printed.
func printEnv(program string, output int) ([]string, error) {
	s := &Spec{Cgroup: -1}
	s.Argv = []string{program, "PID", "SAME"} // printed with one write
	s.Env = []string{"LANG=C"}
	s.PidEnv, s.Umask = []string{"PID", "SAME"}, -1
	if pidfs() {
		s.Argv, s.PidfdEnv = append(s.Argv, "INODE"), []string{"INODE"}
	}
	s.Files = []int{output, output, output}
	p, err := Prepare(s)
	if err != nil {
		return nil, err
	}
	pid, pidfd, failure, err := Start(p)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pidfd)
	if failure != nil {
		return nil, failure
	}
	if known, fd, ok := p.Child(); !ok || known != pid || fd != pidfd {
		return nil, fmt.Errorf("Child says %d %d %v, Start says %d %d", known, fd, ok, pid, pidfd)
	}
	var st unix.Stat_t
	if err := unix.Fstat(pidfd, &st); err != nil {
		return nil, err
	}
	var info unix.Siginfo
	for {
		if err = unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED|unix.WNOWAIT, nil); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("wait for pidfd of %d: %w", pid, err)
	}
	var ws unix.WaitStatus
	for {
		got, err := unix.Wait4(pid, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || got != pid || ws != 0 {
			return nil, fmt.Errorf("wait for %d: %d, %#x, %w", pid, got, ws, err)
		}
		lines := []string{fmt.Sprint(pid), fmt.Sprint(pid)}
		if pidfs() {
			lines = append(lines, fmt.Sprint(st.Ino))
		}
		return lines, nil
	}
}

// noise keeps n goroutines busy with what the runtime finds hardest.
func noise(n int) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					sink.Store(deep(200))
				}
			}
		})
	}
	return func() { close(done); wg.Wait() }
}

var sink atomic.Pointer[[]*[64]int]

// deep makes a stack of n frames and a pointer to follow for each.
func deep(n int) *[]*[64]int {
	var frame [64]int
	if n == 0 {
		return new([]*[64]int)
	}
	frame[n%64] = n
	list := deep(n - 1)
	*list = append(*list, &[64]int{frame[n%64]})
	return list
}
