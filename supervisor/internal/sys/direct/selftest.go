package direct

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// selfTestPatience bounds SelfTest, which takes some milliseconds.
const selfTestPatience = 5 * time.Second

// SelfTest tells whether the direct way works here: on this kernel, under this
// container's filter, in this emulator. It starts this program once more, in a
// small role that looks at what it was given, and a program that cannot be. The
// answer is kept; with an error the trampoline is to be used.
func SelfTest() error { return selfTest() }

var selfTest = sync.OnceValue(func() error {
	result := make(chan error, 1)
	go func() { // Start may hang, and Go has no way to call it off
		result <- errors.Join(startsRight(), failsRight())
	}()
	err := fmt.Errorf("no answer within %v", selfTestPatience)
	select {
	case err = <-result:
	case <-time.After(selfTestPatience):
	}
	if err != nil {
		return fmt.Errorf("direct: self-test: %w", err)
	}
	return nil
})

// startsRight starts the role and hears what it has to say.
func startsRight() error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	unix.SetNonblock(pipe[0], true)
	r := os.NewFile(uintptr(pipe[0]), "self-test")
	defer r.Close()
	c, err := startCheck(pipe[1])
	unix.Close(pipe[1])
	if err != nil {
		return err
	}
	defer c.reap()
	r.SetReadDeadline(time.Now().Add(selfTestPatience))
	said, err := io.ReadAll(io.LimitReader(r, 4096))
	switch {
	case err != nil:
		unix.Kill(c.pid, unix.SIGKILL)
		return err
	case string(said) != passed:
		return fmt.Errorf("the child says %q", said)
	}
	return nil
}

// startCheck starts the role with output as its 1 and 2.
func startCheck(output int) (tested, error) {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return tested{}, fmt.Errorf("%s: %w", os.DevNull, err)
	}
	defer unix.Close(null)
	// One more, open on exec and far up, that the child is not to have.
	leak, err := unix.FcntlInt(uintptr(null), unix.F_DUPFD, checkLeak)
	if err != nil {
		return tested{}, fmt.Errorf("%s: %w", os.DevNull, err)
	}
	defer unix.Close(leak)
	s := checkSpec()
	s.Files = []int{null, output, output, null}
	return startTested(s)
}

// failsRight starts a folder, and wants to hear that this was wrong.
func failsRight() error {
	s := &Spec{Cgroup: -1}
	s.Argv, s.Umask = []string{"/"}, -1
	c, err := startTested(s)
	switch {
	case err == nil:
		unix.Kill(c.pid, unix.SIGKILL)
		c.reap()
		return errors.New("no error for a program that is none")
	case !errors.Is(err, unix.EACCES):
		return err
	}
	return nil
}

// tested is a child of the self-test.
type tested struct{ pid, pidfd int }

// startTested starts s; with an error there is no child left.
func startTested(s *Spec) (tested, error) {
	p, err := Prepare(s)
	if err != nil {
		return tested{}, err
	}
	pid, pidfd, failure, err := Start(p)
	if err != nil {
		return tested{}, err
	}
	c := tested{pid, pidfd}
	if failure != nil {
		c.reap()
		return tested{}, failure
	}
	return c, nil
}

// reap waits for the end of the child. Whoever sweeps up orphans may be first; it
// is the same to us.
func (c tested) reap() {
	for {
		if _, err := unix.Wait4(c.pid, nil, 0, nil); err != unix.EINTR {
			break
		}
	}
	if c.pidfd >= 0 {
		unix.Close(c.pidfd)
	}
}
