package keeper_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// A keeper without room understands its supervisor all the same: what there is no room
// for is refused, each by itself, and so is a run that would take of the reserve.
func TestKeeperWithoutRoom(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "GUARD_ROLE=exhausted", keeper.FDVariable+"=none")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func exhausted() int {
	if err := withoutRoom(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func withoutRoom() error {
	const most = 256
	l, err := keeper.NewLocal(keeper.Options{NoCgroup: true})
	if err != nil {
		return err
	}
	talk, err := keeper.NewTalk(l)
	if err != nil {
		return err
	}
	limit := unix.Rlimit{Cur: most, Max: most}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	fill := func(free int) (fds []int) {
		for {
			fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				break
			}
			fds = append(fds, fd)
		}
		for _, fd := range fds[len(fds)-free:] {
			unix.Close(fd)
		}
		return fds[:len(fds)-free]
	}
	for _, free := range []int{0, 1, 3, keeper.Reserve / 2} {
		full := fill(free)
		if err := talk.Hold(0, "a", "b", "c", "d"); err != nil {
			return fmt.Errorf("%d free: hold: %w", free, err)
		}
		if said, err := talk.Settle(); err != nil || !strings.HasPrefix(said, "hold a: "+unix.EMFILE.Error()) || !strings.HasSuffix(said, "(and 3 more)") {
			return fmt.Errorf("%d free: settled: %q, %w", free, said, err)
		}
		run := id("web", uint64(free+1))
		if err := talk.Spawn(run, process("/bin/true"), 1); err != nil {
			return fmt.Errorf("%d free: spawn: %w", free, err)
		}
		if ev := <-l.Events(); ev.ID != run || ev.Kind != keeper.SpawnFailed || !strings.Contains(ev.Err, unix.EMFILE.Error()) {
			return fmt.Errorf("%d free: %+v", free, ev)
		}
		for _, fd := range full {
			unix.Close(fd)
		}
	}
	if err := talk.Hold(0, "a"); err != nil {
		return err
	}
	said, err := talk.Settle()
	if err == nil && said != "" {
		err = errors.New("with room again: " + said)
	}
	return err
}
