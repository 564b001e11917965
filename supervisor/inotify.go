package supervisor

import (
	"os"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"golang.org/x/sys/unix"
)

// The names under which the keeper holds the inotify descriptors of the runtime folder
// and of paths.
const (
	doorHeld  = "inotify/door"
	pathsHeld = "inotify/paths"
)

// openInotify takes the inotify descriptor that the keeper holds under a name, with all
// that it watches and what has happened meanwhile, or makes one; the file is a duplicate.
//
// Nothing would be lost with a new one. But the kernel lets go of watches slowly, since
// others may be looking at them (synchronize_srcu in fsnotify_mark_destroy_workfn): 20 ms
// were measured. A process that has the last descriptor is not dead before that, and
// another supervisor is started when the one before is dead.
func (s *Supervisor) openInotify(held string, inv keeper.Inventory) (*os.File, error) {
	fd, ok := inv.Descriptors[held]
	if !ok {
		var err error
		if fd, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
			return nil, err
		}
		if err := s.keeper.Hold(held, fd); err != nil {
			unix.Close(fd)
			return nil, err
		}
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(dup), "inotify"), nil
}

// closeInotify ends it; the keeper lets it go, unless others are to go on with it.
func (s *Supervisor) closeInotify(held string, file *os.File) {
	file.Close()
	if s.crashed == nil {
		s.keeper.Release(held)
	}
}
