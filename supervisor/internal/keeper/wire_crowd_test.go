package keeper_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// As many descriptors of a user may be on their way as he may have open: another sockd of
// his that does not read keeps a keeper and its supervisor waiting, and parts them not.
func TestTooManyDescriptorsOnTheirWay(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "GUARD_ROLE=crowded", keeper.FDVariable+"=none")
	if os.Getuid() == 0 { // root may send any number
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
	}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 77 {
		t.Skipf("%s", out)
	}
	if errors.Is(err, os.ErrPermission) {
		t.Skipf("another user may not execute the test: %v", err)
	}
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func crowded() int {
	limit := unix.Rlimit{Cur: 64, Max: 64}
	err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	others, err2 := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	ours, err3 := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil || err2 != nil || err3 != nil {
		fmt.Println(err, err2, err3)
		return 1
	}
	many := make([]int, 100) // the same one, again and again
	if err := unix.Sendmsg(others[0], []byte("x"), unix.UnixRights(many...), nil, 0); err != nil {
		fmt.Println(err)
		return 1
	}
	if err := unix.Sendmsg(ours[0], []byte("x"), unix.UnixRights(0), nil, 0); err != unix.ETOOMANYREFS {
		fmt.Println("no limit here:", err)
		return 77
	}
	sent := make(chan error, 1)
	go func() { sent <- keeper.SendDescriptor(ours[0], 0) }()
	select {
	case err := <-sent:
		fmt.Println("it did not wait:", err)
		return 1
	case <-time.After(50 * time.Millisecond):
	}
	unix.Close(others[0])
	unix.Close(others[1])
	if err := <-sent; err != nil {
		fmt.Println("in the end:", err)
		return 1
	}
	return 0
}
