package sys

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// Without descriptors nobody says that there are no children. It takes over a process.
func TestChildrenWithoutDescriptors(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"=no descriptors", "GORACE=atexit_sleep_ms=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func init() {
	roles["no descriptors"] = func() int {
		limit := unix.Rlimit{Cur: 128, Max: 128}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			fmt.Println(err)
			return 1
		}
		bad := 0
		for free := 0; free < 2; free++ {
			var all []int
			for {
				fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					break
				}
				all = append(all, fd)
			}
			held := all
			if free == 1 {
				unix.Close(all[0])
				held = all[1:]
			}
			pids, err := childrenOf(os.Getpid())
			if free == 0 && !errors.Is(err, unix.EMFILE) || free == 1 && err != nil {
				fmt.Println(free, "free:", pids, err)
				bad = 1
			}
			closeAll(held)
		}
		return bad
	}
}
