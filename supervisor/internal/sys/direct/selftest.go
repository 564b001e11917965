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
	err := startCheck(pipe[1])
	unix.Close(pipe[1])
	if err != nil {
		return err
	}
	r.SetReadDeadline(time.Now().Add(selfTestPatience))
	said, err := io.ReadAll(io.LimitReader(r, 4096))
	if err == nil && string(said) != passed {
		err = fmt.Errorf("the child says %q", said)
	}
	return err
}

// startCheck starts the role with output as its 1 and 2. The role ends when it has
// spoken; then it is reaped.
func startCheck(output int) error {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", os.DevNull, err)
	}
	defer unix.Close(null)
	// One more, open on exec and far up, that the child is not to have.
	leak, err := unix.FcntlInt(uintptr(null), unix.F_DUPFD, checkLeak)
	if err != nil {
		return fmt.Errorf("%s: %w", os.DevNull, err)
	}
	defer unix.Close(leak)
	s := checkSpec()
	s.Files = []int{null, output, output, null}
	return startAndReap(s)
}

// failsRight starts a folder, and wants to hear that this was wrong.
func failsRight() error {
	s := &Spec{Cgroup: -1}
	s.Argv, s.Umask = []string{"/"}, -1
	switch err := startAndReap(s); {
	case err == nil:
		return errors.New("no error for a program that is none")
	case !errors.Is(err, unix.EACCES):
		return err
	}
	return nil
}

// startAndReap starts s and reaps the child when it ends.
func startAndReap(s *Spec) error {
	p, err := Prepare(s)
	if err != nil {
		return err
	}
	pid, pidfd, failure, err := Start(p)
	if err != nil {
		return err
	}
	go func() { // whoever sweeps up orphans may be first; it is the same to us
		for {
			if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
				break
			}
		}
		if pidfd >= 0 {
			unix.Close(pidfd)
		}
	}()
	if failure != nil {
		return failure
	}
	return nil
}
