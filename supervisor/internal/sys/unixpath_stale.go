package sys

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// take binds the name. Where it is taken by a socket that nobody serves any more,
// that one is replaced; anything else stays and is an error. A symbolic link as
// the last part of the path is something else; above that, links are followed.
// The caller calls unlock when it has seen what it has bound.
func (p *UnixPath) take(fd int) (unlock func(), err error) {
	unlock = func() {}
	for try := 0; ; try++ {
		err := unix.Bind(fd, &unix.SockaddrUnix{Name: p.Path})
		if err != unix.EADDRINUSE {
			return unlock, err
		}
		if try == 0 {
			unlock = lockDir(filepath.Dir(p.Path))
		}
		if err := p.evict(); err != nil || try == 9 {
			return unlock, err
		}
	}
}

// lockDir lets one sockd at a time replace stale sockets in a folder. The lock is
// the folder's own, so no lock file is left; it goes with the process. Somebody
// else may hold it for reasons of his own: after a second we go without, and only
// the looks before and after stand between two that replace the same socket.
func lockDir(dir string) (unlock func()) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return func() {}
	}
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
		return func() { unix.Close(fd) }
	}
	got, late := make(chan struct{}), make(chan struct{})
	go func() {
		for unix.Flock(fd, unix.LOCK_EX) == unix.EINTR {
		}
		select {
		case got <- struct{}{}:
		case <-late:
			unix.Close(fd)
		}
	}()
	select {
	case <-got:
		return func() { unix.Close(fd) }
	case <-time.After(time.Second):
		close(late)
		return func() {}
	}
}

// evict removes a stale socket, after proof.
func (p *UnixPath) evict() error {
	id, mode, err := identify(p.Path)
	if err == unix.ENOENT {
		return nil // gone by itself
	}
	if err != nil {
		return err
	}
	if mode&unix.S_IFMT != unix.S_IFSOCK {
		return &BindError{Op: "bind", Err: unix.EADDRINUSE, Hint: "there is " + fileType(mode) + " of that name, which sockd leaves alone"}
	}
	if err := probe(p.Path); err != unix.ECONNREFUSED {
		e := &BindError{Op: "bind", Err: unix.EADDRINUSE, Owner: fileOwner(id)}
		switch {
		case err == unix.EACCES:
			e.Hint = "sockd may not connect to it to see whether it is in use"
		case e.Owner == nil:
			e.Hint = "somebody answers there"
		}
		return e
	}
	// Somebody else may have had the same proof, and may have bound the name since.
	// So the file is taken aside, looked at again, and only then removed; the wrong
	// one goes back.
	aside := fmt.Sprintf("%s/.sockd-%s", filepath.Dir(p.Path), randomHex(8))
	if err := unix.Renameat2(unix.AT_FDCWD, p.Path, unix.AT_FDCWD, aside, unix.RENAME_NOREPLACE); err != nil {
		if err == unix.ENOENT {
			return nil
		}
		return fmt.Errorf("remove the stale socket: %w", err)
	}
	if moved, _, err := identify(aside); err != nil || moved != id || !stale(aside) {
		if err := os.Link(aside, p.Path); err != nil {
			return fmt.Errorf("%s was bound by somebody else in this moment and is now %s: %w", p.Path, aside, err)
		}
		os.Remove(aside)
		return &BindError{Op: "bind", Err: unix.EADDRINUSE, Hint: "somebody else bound it in this moment"}
	}
	return os.Remove(aside)
}

// stale is the proof: it is a socket, and nobody is behind it.
func stale(path string) bool {
	_, mode, err := identify(path)
	return err == nil && mode&unix.S_IFMT == unix.S_IFSOCK && probe(path) == unix.ECONNREFUSED
}

// probe tries to connect as a datagram socket, whatever is there. A path without
// a socket behind it gives ECONNREFUSED. A stream socket gives EPROTOTYPE, whether
// it listens yet or not, and does not notice: a connect of its own type would be
// refused before it listens, and would call a service to life afterwards.
// The way through /proc is short, where the path may be too long for an address.
func probe(path string) error {
	file, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(file)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d", file)})
}

// fileOwner finds the socket that is bound to a file.
func fileOwner(id FileID) *Owner {
	return unixOwner(func(s *diagUnix) bool { return s.boundTo(id) })
}

// boundTo compares what the kernel's list says with a file. The list has 32 bits
// of the inode and the kernel's own form of the device.
func (s *diagUnix) boundTo(id FileID) bool {
	dev := unix.Major(id.Dev)<<20 | unix.Minor(id.Dev)
	return s.vfsIno != 0 && s.vfsIno == uint32(id.Inode) && s.vfsDev == dev
}

// unixOwner finds the Unix socket that matches, a listener first.
func unixOwner(match func(*diagUnix) bool) *Owner {
	list, err := diagUnixSockets(0)
	if err != nil {
		return nil // the kernel may lack unix_diag
	}
	var best *diagUnix
	for i := range list {
		// A connection accepted from a listener carries its name too.
		if s := &list[i]; match(s) && (best == nil || s.state == tcpListen) {
			best = s
		}
	}
	if best == nil {
		return nil
	}
	o := &Owner{UID: best.uid, Inode: uint64(best.inode)}
	o.find()
	return o
}

// isSocketFile says whether the file in dir is the one that fd was bound to. The
// question is only open where others may rename in the folder; without unix_diag
// nothing speaks against it.
func isSocketFile(fd int, dir string, st *unix.Stat_t) bool {
	var in unix.Stat_t
	if unix.Stat(dir, &in) == nil && (in.Uid == 0 || int(in.Uid) == os.Geteuid()) &&
		(in.Mode&0o022 == 0 || in.Mode&unix.S_ISVTX != 0) {
		return true
	}
	inode, err := Inode(fd)
	if err != nil {
		return false
	}
	list, err := diagUnixSockets(uint32(inode))
	if err != nil || len(list) != 1 || list[0].vfsIno == 0 {
		return true
	}
	return list[0].vfsIno == uint32(st.Ino)
}

func fileType(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "a folder"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFREG:
		return "a file"
	}
	return "a device"
}
