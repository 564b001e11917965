package sys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Restore gives the socket its public name again after somebody has unlinked it,
// as many services do when they exit. It is the same socket: its address, its
// queue and its clients are untouched. It reports whether there was something to
// do. What somebody else has put there stays and is an error, as is a socket whose
// hidden link could not be made or has been removed too: then only binding anew helps.
func (p *UnixPath) Restore() (restored bool, err error) {
	registerDirs(p.Dirs)
	for range 3 {
		ours, err := p.is(p.Path)
		switch {
		case err == nil && ours:
			if p.Hidden != "" && !exists(p.Hidden) {
				p.hide() // somebody has tidied up beside us
			}
			return false, nil
		case err == nil:
			return false, fmt.Errorf("restore %s: somebody else has put %s there: %w", p.Path, describe(p.Path), fs.ErrExist)
		case !errors.Is(err, fs.ErrNotExist):
			return false, fmt.Errorf("restore %s: %w", p.Path, err)
		case p.Hidden == "":
			return false, fmt.Errorf("restore %s: it has no second hard link (%s)", p.Path, p.NoHidden)
		}
		if ours, err := p.is(p.Hidden); err != nil || !ours {
			return false, fmt.Errorf("restore %s: its hidden link %s is gone too", p.Path, p.Hidden)
		}
		if err := os.Link(p.Hidden, p.Path); err == nil {
			return true, nil
		} else if !errors.Is(err, fs.ErrExist) {
			return false, fmt.Errorf("restore: %w", err)
		}
	}
	return false, fmt.Errorf("restore %s: the name comes and goes", p.Path)
}

// Remove takes away what was made for the socket and is still ours: the name, the
// hidden link, and folders that sockd made, when they are empty. It may be called
// again, before or after the socket is closed.
func (p *UnixPath) Remove() error {
	var problems []error
	for _, name := range []string{p.Path, p.Hidden} {
		if name == "" || p.Inode == 0 {
			continue
		}
		if ours, err := p.is(name); err != nil || !ours {
			continue // gone, or somebody else's
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	for i := len(p.Dirs) - 1; i >= 0; i-- {
		if err := p.Dirs[i].remove(); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// made knows the folders that sockd made and that still stand. Sockets that come
// later into such a folder own it too, so that the last one to go takes it along.
var made = struct {
	sync.Mutex
	dirs map[string]Made
}{dirs: map[string]Made{}}

func registerDirs(dirs []Made) {
	made.Lock()
	defer made.Unlock()
	for _, d := range dirs {
		made.dirs[d.Path] = d
	}
}

// makeDirs makes the folders above the socket and notes which ones are ours. A
// folder is made closed and then opened to the mode asked for, whatever the umask.
func (p *UnixPath) makeDirs(dir string, mode fs.FileMode) error {
	made.Lock()
	defer made.Unlock()
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		if known, ok := made.dirs[d]; ok && known.still() {
			p.Dirs = append([]Made{known}, p.Dirs...)
		} else if _, err := os.Stat(d); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, d)
		} else if err != nil {
			return err
		}
		if d == filepath.Dir(d) {
			break
		}
	}
	for i := len(missing) - 1; i >= 0; i-- {
		d := missing[i]
		err := os.Mkdir(d, mode&0o700)
		if errors.Is(err, fs.ErrExist) {
			continue // somebody else was faster: theirs
		}
		if err != nil {
			return fmt.Errorf("directory_mode: %w", err)
		}
		id, _, err := identify(d)
		if err != nil {
			return fmt.Errorf("directory_mode: %w", err)
		}
		m := Made{d, id}
		p.Dirs, made.dirs[d] = append(p.Dirs, m), m
		if err := os.Chmod(d, mode); err != nil {
			return fmt.Errorf("directory_mode: %w", err)
		}
	}
	return nil
}

func (m Made) still() bool {
	id, _, err := identify(m.Path)
	return err == nil && id == m.FileID
}

// remove removes an empty folder of ours; one with something in it stays.
func (m Made) remove() error {
	made.Lock()
	defer made.Unlock()
	if !m.still() {
		return nil
	}
	switch err := unix.Rmdir(m.Path); err {
	case nil:
		delete(made.dirs, m.Path)
	case unix.ENOTEMPTY, unix.EEXIST, unix.EBUSY, unix.ENOENT:
	default:
		return fmt.Errorf("remove folder %s: %w", m.Path, err)
	}
	return nil
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

func describe(name string) string {
	_, mode, err := identify(name)
	switch {
	case err != nil:
		return "something"
	case mode&unix.S_IFMT == unix.S_IFSOCK:
		return "another socket"
	}
	return fileType(mode)
}
