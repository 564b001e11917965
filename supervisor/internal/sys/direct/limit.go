package direct

import (
	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys/direct/inherited"
)

type limit = inherited.Limit

// limitToRestore returns the limit of descriptors that the child is to have if
// the one in force is Go's work and nobody else's: package syscall raises the soft
// limit to one below the hard one, and its own ForkExec judges by the same mark.
func limitToRestore() *limit {
	was, ok := inherited.Descriptors()
	if !ok || was.Hard == 0 || was.Soft >= was.Hard-1 {
		return nil // Go had nothing to raise
	}
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil || now.Cur != was.Hard-1 || now.Max != was.Hard {
		return nil
	}
	return &was
}
