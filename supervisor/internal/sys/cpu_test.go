package sys

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys/trampoline"
)

func firstCPU(t testing.TB) int {
	t.Helper()
	list, err := CPUs()
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	return list[0]
}

// Both ways: each CPU that we may use, and one that the machine does not have.
func TestPinnedToOneCPU(t *testing.T) {
	needDirect(t)
	list, err := CPUs()
	if err != nil {
		t.Fatal(err)
	}
	out := newPipe(t)
	for _, w := range ways {
		for _, cpu := range list {
			s := looks(0)
			s.CPU = 1 + cpu
			o := w.run(t, out, s)
			if want := fmt.Sprintf("Cpus_allowed_list:\t%d\n", cpu); o.failure != nil || !strings.Contains(o.output, want) {
				t.Errorf("%s: no line %q, %v", w.name, want, o.failure)
			}
		}
		s := spec("/bin/true")
		s.CPU = trampoline.MaxCPU
		o := w.run(t, out, s)
		if f := (*Failure)(nil); !errors.As(o.failure, &f) || f.Stage != "cpu" || f.Detail != "8191" || f.Errno != unix.EINVAL || o.status.Code != 127 {
			t.Errorf("%s: %v, %+v", w.name, o.failure, o.status)
		}
	}
}

func TestIncomingCPU(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, cpu := range []int{0, 1, AnyCPU, AnyCPU} {
		if err := IncomingCPU(fd, cpu); err != nil {
			t.Fatal(err)
		}
		if got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_INCOMING_CPU); err != nil || got != cpu {
			t.Errorf("%d, %v, want %d", got, err, cpu)
		}
	}
}
