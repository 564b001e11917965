package supervisor

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/sys"
)

// healPaths sees that the paths of a unit's sockets are there. Asked says that an
// operator wants the unit to be right, also at the price of replacing its runs.
func (s *Supervisor) healPaths(u *unit, asked bool) {
	for _, k := range u.sockets {
		s.healPath(u, k, asked, 0)
	}
}

// healPath gives a socket its path back after somebody has removed it: by its hidden
// link it is the same socket as before. Where that is gone too, only a new socket in
// its place helps; that is bound where no run but gen has the old one, and at an
// operator's word, and never while clients wait in the old one.
func (s *Supervisor) healPath(u *unit, k *socket, asked bool, gen uint64) {
	if k.path == nil || u.removed || s.stopping {
		return
	}
	hidden, file, inode := k.path.Hidden, k.path.FileID, k.inode
	restored, err := s.mendPath(u, k, asked, gen)
	if err != nil {
		k.eyed = sys.FileID{} // of interest is what lies there now
	}
	passing("path: about to be watched")
	if s.watchPath(u, k); err == nil && !s.eyes(k) { // it was removed again, before it was watched
		again, problem := s.mendPath(u, k, asked, gen)
		s.watchPath(u, k)
		restored, err = restored || again, problem
	}
	lost := ""
	switch {
	case err != nil:
		if lost = err.Error(); lost != k.lost {
			s.log.Error("path lost", "unit", u.conf.Name, "socket", k.where(), "err", err)
		}
	case k.inode == inode && k.path.FileID != file:
		s.log.Warn("path recognised", "unit", u.conf.Name, "socket", k.where(), "because", "a supervisor before us has made it again, and died before it was saved")
	case k.inode != inode:
		s.log.Warn("path made again", "unit", u.conf.Name, "socket", k.where(), "because", "somebody had removed all of it; this is a new socket", "inode", k.inode, "was", inode)
	case restored:
		s.log.Warn("path restored", "unit", u.conf.Name, "socket", k.where(), "because", "somebody had removed it")
	}
	if k.path.Hidden != hidden || k.path.FileID != file || k.inode != inode {
		u.savedSockets = nil
		if err := s.save(u); err != nil {
			s.log.Error("not saved", "unit", u.conf.Name, "err", err)
		}
	} else if lost == k.lost && !restored {
		return
	}
	k.lost = lost
	s.publish(u)
}

// mendPath gives the path back, or makes all of it again. What is there instead stays,
// but for a socket that nobody has any more.
func (s *Supervisor) mendPath(u *unit, k *socket, asked bool, gen uint64) (restored bool, err error) {
	if k.fd < 0 { // there was none that the keeper could hold
		if err = s.bindAgain(u, k); err == nil && u.watches(k.instance) {
			s.watchSocket(u, k)
		}
		return false, err
	}
	restored, err = k.path.Restore()
	if errors.Is(err, fs.ErrExist) {
		if k.path.Recognise(k.fd) {
			return false, nil
		}
		if k.path.Evict() == nil {
			restored, err = k.path.Restore()
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		err = s.bindPathAgain(u, k, asked, gen, err)
	}
	return restored, err
}

// bindPathAgain puts a new socket in the place of one that nobody can reach, if that
// may be; because says why it cannot be reached. Runs that have the old one are replaced.
func (s *Supervisor) bindPathAgain(u *unit, k *socket, asked bool, gen uint64, because error) error {
	alone := s.alone(u, k, gen)
	if !alone && !asked {
		return fmt.Errorf("%w; sockd restart %s makes it again, with a new socket", because, u.conf.Name)
	}
	if queued, _, _, err := sys.Queue(k.fd); err != nil || queued > 0 {
		return fmt.Errorf("%w; it is made again when those who wait in the socket have been served", because)
	}
	err := s.bindAgain(u, k)
	if k.fd >= 0 && u.watches(k.instance) {
		s.watchSocket(u, k)
	}
	if err == nil && !alone && u.machine.Up {
		s.follow = append(s.follow, news{u, machine.Replace{Upto: u.machine.LastGen}})
	}
	return err
}
