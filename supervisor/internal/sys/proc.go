package sys

import (
	"fmt"
	"os"
	"strconv"
)

// CheckProc says what is wrong with /proc, if anything is: sockd starts itself
// through it, and finds there what runs have left behind.
func CheckProc() error {
	const hint = "mount one for these processes: mount -t proc proc /proc"
	link, err := os.Readlink("/proc/self")
	if err != nil {
		return fmt.Errorf("no /proc (%w); %s", err, hint)
	}
	if link != strconv.Itoa(os.Getpid()) {
		return fmt.Errorf("/proc is that of another pid namespace: we are process %d, and %s there; %s", os.Getpid(), link, hint)
	}
	return nil
}
