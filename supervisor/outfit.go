package supervisor

import (
	"github.com/sockd/sockd/supervisor/internal/sys"
	"golang.org/x/sys/unix"
)

// An outfit is what each run gets and any may have: a notify socket and a log pipe. One
// is made ahead, when nobody waits for a start. What is left in it is closed with it.
type outfit struct {
	notify  int
	address string // of the notify socket
	log     [2]int
}

// logPipe is how much a service can write while nobody reads, in bytes.
const logPipe = 256 << 10

// newOutfit makes one, or names the stage of a start that failed.
func newOutfit() (o *outfit, stage string, err error) {
	o = &outfit{notify: -1, log: [2]int{-1, -1}}
	if o.notify, o.address, err = sys.NewNotify(); err != nil {
		return nil, "notify", err
	}
	if err = unix.Pipe2(o.log[:], unix.O_CLOEXEC); err == nil {
		unix.FcntlInt(uintptr(o.log[0]), unix.F_SETPIPE_SZ, logPipe) // a wish: the user's limit may be lower
		err = unix.SetNonblock(o.log[0], true)
	}
	if err != nil {
		o.close()
		return nil, "log", err
	}
	return o, "", nil
}

// takeOutfit returns the one that was made ahead, or a new one.
func (s *Supervisor) takeOutfit() (o *outfit, stage string, err error) {
	if o, s.outfit = s.outfit, nil; o != nil {
		return o, "", nil
	}
	return newOutfit()
}

// prepareOutfit makes one for the next run.
func (s *Supervisor) prepareOutfit() {
	if s.outfit == nil && !s.stopping {
		s.outfit, _, _ = newOutfit() // where that fails the next run says so
	}
}

func (o *outfit) close() {
	if o == nil {
		return
	}
	for _, fd := range [...]int{o.notify, o.log[0], o.log[1]} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
