package supervisor

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"golang.org/x/sys/unix"
)

// A pathWatch hears when a Unix socket's path is removed: by a cleaner of temporary
// files, by a service that tidies up. It watches the file and not its folder, where
// much else may happen: each link that comes or goes is news of the file (inotify(7),
// IN_ATTRIB). Its folder says only when it is moved or removed itself; of those above
// nothing is heard.
type pathWatch struct {
	file    *os.File          // inotify(7)
	sockets map[int32]*socket // by watch; a watch that is not there is a folder's
}

// pathsPatience is how long after the news of a path it is looked at: a folder that is
// being removed shall go whole, and who removes a path again and again shall not keep us
// busy.
const pathsPatience = 100 * time.Millisecond

// keepPaths begins to look after the paths of all units, until stop is called. What
// has happened to them while nobody looked is mended.
func (s *Supervisor) keepPaths(inv keeper.Inventory) (stop func()) {
	stop = func() {}
	if file, err := s.openInotify(pathsHeld, inv); err != nil {
		s.log.Warn("paths of sockets not watched", "err", err)
	} else {
		stop = func() { s.closeInotify(pathsHeld, file) }
		s.paths = &pathWatch{file, map[int32]*socket{}}
		go s.hearPaths(file)
	}
	for _, u := range s.sorted() {
		s.healPaths(u, false)
	}
	return stop
}

// watchPaths begins to watch those that are not watched yet.
func (s *Supervisor) watchPaths() {
	for _, u := range s.units {
		for _, k := range u.sockets {
			if k.path != nil && !s.eyes(k) {
				s.healPath(u, k, false, 0)
			}
		}
	}
}

// eyes says whether a socket's path is watched, as far as that can be.
func (s *Supervisor) eyes(k *socket) bool { return s.paths == nil || k.eyed == k.path.FileID }

// watchPath watches a socket's file; in place of a path that is lost, what lies there
// in its stead, until that goes.
func (s *Supervisor) watchPath(u *unit, k *socket) {
	if s.eyes(k) {
		return
	}
	const itself = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	dir := filepath.Dir(k.path.Path)
	_, err := s.paths.add(dir, itself|unix.IN_ONLYDIR)
	if err == nil {
		var wd int
		if wd, err = s.paths.add(k.path.Path, itself|unix.IN_ATTRIB|unix.IN_DONT_FOLLOW); err == nil {
			s.paths.sockets[int32(wd)] = k
		}
	}
	if ours, _ := k.path.There(); ours { // and whatever happens to it now will be heard of
		k.eyed = k.path.FileID
		if err != nil {
			s.log.Warn("path not watched", "unit", u.conf.Name, "socket", k.where(), "err", err)
		}
	}
}

// add watches what lies at path.
func (w *pathWatch) add(path string, mask uint32) (wd int, err error) {
	raw, err := w.file.SyscallConn()
	if err == nil {
		if e := raw.Control(func(fd uintptr) { wd, err = unix.InotifyAddWatch(int(fd), path, mask) }); e != nil {
			err = e
		}
	}
	return wd, err
}

// hearPaths carries what is heard of paths to the loop.
func (s *Supervisor) hearPaths(file *os.File) {
	buf := make([]byte, 64<<10)
	for {
		n, err := file.Read(buf)
		if err != nil {
			return
		}
		var touched, gone []int32
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd, mask, name := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
			if mask&unix.IN_IGNORED != 0 {
				gone = append(gone, wd)
			} else {
				touched = append(touched, wd)
			}
			b = b[unix.SizeofInotifyEvent+name:]
		}
		select {
		case <-time.After(pathsPatience):
		case <-s.quit:
			return
		}
		if s.ask(context.Background(), func() error { s.pathsTouched(touched, gone); return nil }) != nil {
			return
		}
	}
}

// pathsTouched looks at the sockets that watches are for, and at all if they may be
// for any: that of a folder, and -1, which says that more has happened than was kept.
func (s *Supervisor) pathsTouched(touched, gone []int32) {
	all := false
	of := map[*socket]bool{}
	for _, wd := range touched {
		k := s.paths.sockets[wd]
		of[k] = true
		all = all || k == nil
	}
	for _, wd := range gone {
		delete(s.paths.sockets, wd)
	}
	for _, u := range s.sorted() {
		if all || slices.ContainsFunc(u.sockets, func(k *socket) bool { return of[k] }) {
			s.healPaths(u, false)
		}
	}
	s.settleFollowing()
}
