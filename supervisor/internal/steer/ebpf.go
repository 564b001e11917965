package steer

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// A mapped is the engine of level EBPF. Places are keys of a map, so the kernel's
// order does not matter, and a change is one write.
type mapped struct {
	s    *steering // to reach members
	maps *maps
	prog *ebpf.Program
}

func (e *mapped) level() Level { return EBPF }

func (e *mapped) spread(t *table, _ []int) error {
	if err := e.maps.table.Put(uint32(0), t); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

func (e *mapped) migrates() bool         { return true }
func (e *mapped) leaving(int, int) error { return nil }

// left: the kernel drops a listener by itself. It is asked, as it is not told to for
// a datagram socket, and another socket may have the place by now.
func (e *mapped) left(place, fd int) error {
	if same, err := e.is(place, fd); err != nil || !same {
		return err
	}
	err := e.maps.sockets.Delete(uint32(place))
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// entered attaches the program again: a group whose last member had gone is another
// one now. A locked socket refuses, and does not need it while others are there.
func (e *mapped) entered(place, fd int) error {
	if err := e.put(place, fd); err != nil {
		return err
	}
	err := e.attach(fd)
	if err == unix.EPERM {
		if e.s.other(place, func(int) bool { return true }) {
			return nil
		}
		return e.s.ferry(e.attach)
	}
	return os.NewSyscallError("set SO_ATTACH_REUSEPORT_EBPF", err)
}

// put enters a socket into the map.
func (e *mapped) put(place, fd int) error {
	// A socket that is in the map already is refused as busy, at its own place too.
	if same, err := e.is(place, fd); err != nil || same {
		return err
	}
	if err := e.maps.sockets.Put(uint32(place), uint64(fd)); err != nil {
		return fmt.Errorf("put socket at place %d: %w", place, err)
	}
	return nil
}

// is says whether the socket at place is fd.
func (e *mapped) is(place, fd int) (bool, error) {
	want, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return false, err
	}
	var cookie uint64
	err = e.maps.sockets.Lookup(uint32(place), &cookie)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	return cookie == want, err
}

func (e *mapped) counts(places int) (Counts, bool) {
	var words [countWords]uint64
	if err := e.maps.counts.Lookup(uint32(0), &words); err != nil {
		return Counts{}, false
	}
	return Counts{
		Steered: append([]uint64(nil), words[:places]...),
		Hashed:  words[countHashed],
		Moved:   words[countMoved],
	}, true
}

func (e *mapped) held() map[string]int {
	fds := make(map[string]int)
	for name, m := range e.maps.named() {
		fds[name] = m.FD()
	}
	return fds
}

// close takes the sockets out by hand: the map itself ends some time later, and until
// then they could not join another.
func (e *mapped) close(fd int) error {
	var errs []error
	if fd >= 0 {
		errs = append(errs, detach(fd))
	}
	for place, fd := range e.s.fds {
		if fd >= 0 {
			errs = append(errs, e.left(place, fd))
		}
	}
	e.free()
	return errors.Join(errs...)
}

func (e *mapped) free() {
	e.maps.close()
	e.prog.Close() // of nil too
}
