package trampoline

import (
	"os"
	"syscall"
	"testing"
)

// Without close_range the descriptors there are get marked, and not all there could be:
// a container may allow a thousand million.
func TestMarkingOneByOne(t *testing.T) {
	var fds [3]int
	for i := range fds {
		fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(fd)
		fds[i] = fd
	}
	const far = 900 // beside them, with a gap
	if err := syscall.Dup3(fds[0], far, 0); err != nil {
		t.Skip(err)
	}
	defer syscall.Close(far)
	if !markListed(fds[1]) {
		t.Fatal("no list of descriptors")
	}
	for fd, want := range map[int]int{fds[0]: 0, fds[1]: syscall.FD_CLOEXEC, fds[2]: syscall.FD_CLOEXEC, far: syscall.FD_CLOEXEC} {
		if flags, err := fcntl(fd, syscall.F_GETFD, 0); err != 0 || flags != want {
			t.Errorf("descriptor %d: flags %d, %v", fd, flags, err)
		}
	}
}

func BenchmarkMarking(b *testing.B) {
	b.Run("listed", func(b *testing.B) {
		for b.Loop() {
			markListed(1000)
		}
	})
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			markAll(1000)
		}
	})
}
