package sys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A UnixPath is the name of a bound Unix socket in the file system, and what was
// made for it. It is plain data: saved as JSON, it serves the next supervisor.
type UnixPath struct {
	Path     string // absolute, public
	Hidden   string `json:",omitempty"` // a second hard link beside it; "" if there is none
	NoHidden string `json:",omitempty"` // why there is none
	FileID          // of the socket's file
	Dirs     []Made `json:",omitempty"` // folders that sockd made for it, outermost first
}

// A Made folder is known by more than its name: a folder that somebody else made
// later in its place is not ours to remove.
type Made struct {
	Path string
	FileID
}

// A FileID tells a file from every other, also from a later one that was given the
// same inode number, which happens at once on some file systems.
type FileID struct {
	Dev, Inode uint64
	Born       int64 // nanoseconds since 1970; 0 where the file system does not know
}

// identify looks at the name itself, not behind a symbolic link.
func identify(name string) (id FileID, mode uint32, err error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return FileID{}, 0, err
	}
	id = FileID{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Inode: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.Born = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return id, uint32(st.Mode), nil
}

// bindUnix binds unix, unixgram and unixpacket.
func bindUnix(network, address string, o *Options) (*Bound, error) {
	typ := map[string]int{"unix": unix.SOCK_STREAM, "unixgram": unix.SOCK_DGRAM, "unixpacket": unix.SOCK_SEQPACKET}[network]
	abstract := strings.HasPrefix(address, "@")
	switch {
	case address == "" || address == "@":
		return nil, errors.New("a name or a path is missing")
	case strings.ContainsRune(address, 0):
		return nil, errors.New("a path cannot contain NUL")
	case !abstract && !filepath.IsAbs(address):
		abs, err := filepath.Abs(address)
		if err != nil {
			return nil, err
		}
		address = abs
	}
	// sun_path holds 108 bytes, with the NUL at the end of a path (unix(7)).
	if limit := 107; len(address) > limit && !(abstract && len(address) <= limit+1) {
		return nil, fmt.Errorf("%d bytes are too long for the address of a socket (at most %d)", len(address), limit)
	}
	fd, err := unix.Socket(unix.AF_UNIX, typ|socketFlags(o), 0)
	if err != nil {
		return nil, socketError(err)
	}
	b := &Bound{FD: fd, Network: network}
	if err := b.settleUnix(typ, address, abstract, o); err != nil {
		unix.Close(fd)
		if b.Path != nil {
			b.Path.Remove()
		}
		return nil, err
	}
	return b, nil
}

func (b *Bound) settleUnix(typ int, address string, abstract bool, o *Options) error {
	var err error
	if b.Warnings, err = o.apply(b.FD, kind{family: unix.AF_UNIX, typ: typ}, false); err != nil {
		return err
	}
	if abstract {
		err = bindAbstract(b.FD, address)
	} else {
		b.Path = &UnixPath{Path: filepath.Clean(address)}
		err = b.Path.bind(b.FD, o)
	}
	if err != nil {
		return err
	}
	if typ != unix.SOCK_DGRAM {
		if err := b.listen(o.Backlog); err != nil {
			return &BindError{Op: "listen", Err: err}
		}
	}
	return b.name()
}

func bindAbstract(fd int, name string) error {
	err := unix.Bind(fd, &unix.SockaddrUnix{Name: name})
	if err == unix.EADDRINUSE {
		return &BindError{Op: "bind", Err: err, Owner: unixOwner(func(s *diagUnix) bool { return s.name == "\x00"+name[1:] })}
	}
	return err
}

// bind makes the folders, the name, the hidden link, the owner and the mode, in
// this order. At no moment is the socket more open than asked: Linux takes the
// mode of the new file from the socket, so it is made with the owner's bits only,
// whatever the process's umask is, and opened last. (A umask changed around bind
// would be everybody's in this process.)
func (p *UnixPath) bind(fd int, o *Options) error {
	mode, dirMode := o.Mode.Perm(), o.DirectoryMode.Perm()
	if mode == 0 {
		mode = 0o666
	}
	if dirMode == 0 {
		dirMode = 0o755
	}
	if err := p.makeDirs(filepath.Dir(p.Path), dirMode); err != nil {
		return err
	}
	unlock, err := p.create(fd, mode)
	defer unlock()
	if err != nil {
		return err
	}
	file, err := unix.Open(p.Path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(file)
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || !isSocketFile(fd, filepath.Dir(p.Path), &st) {
		return fmt.Errorf("%s was replaced by somebody else while it was made", p.Path)
	}
	id, _, err := identify(p.Path)
	if err != nil || id.Inode != st.Ino {
		return fmt.Errorf("%s was replaced by somebody else while it was made", p.Path)
	}
	p.FileID = id
	p.hide()
	return setAccess(file, &st, mode, o)
}

// create makes the file with the owner's bits of mode.
func (p *UnixPath) create(fd int, mode fs.FileMode) (unlock func(), err error) {
	if err := unix.Fchmod(fd, uint32(mode&0o700)); err != nil {
		return func() {}, fmt.Errorf("mode: %w", err)
	}
	return p.take(fd)
}

// setAccess works on the file itself and not on its name, which somebody who may
// write to the folder could have changed by now.
func setAccess(file int, st *unix.Stat_t, mode fs.FileMode, o *Options) error {
	uid, gid := o.UID, o.GID
	if uid == int(st.Uid) {
		uid = -1
	}
	if gid == int(st.Gid) {
		gid = -1
	}
	if uid != -1 || gid != -1 {
		if err := unix.Fchownat(file, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("user, group: chown to %d:%d: %w (needs CAP_CHOWN, or be a member of the group)", o.UID, o.GID, err)
		}
	}
	// fchmod does not take an O_PATH descriptor; its name in /proc does the same.
	if mode == fs.FileMode(st.Mode).Perm() {
		return nil
	}
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", file), uint32(mode)); err != nil {
		return fmt.Errorf("mode: chmod %#o: %w", mode, err)
	}
	return nil
}

// hide makes the second link. Its name follows from the public one, so that what a
// crashed supervisor left is found again; only a live one there makes it random.
func (p *UnixPath) hide() {
	hidden := p.hiddenName()
	err := os.Link(p.Path, hidden)
	if errors.Is(err, fs.ErrExist) {
		if stale(hidden) {
			os.Remove(hidden)
		} else {
			hidden += "-" + randomHex(4)
		}
		err = os.Link(p.Path, hidden)
	}
	p.Hidden, p.NoHidden = hidden, ""
	if err != nil {
		p.Hidden, p.NoHidden = "", err.Error()
	}
}

func (p *UnixPath) hiddenName() string {
	dir, base := filepath.Split(p.Path)
	return dir + "." + base + ".sockd"
}

// There says whether the public name is the socket's file.
func (p *UnixPath) There() (bool, error) { return p.is(p.Path) }

// is says whether the name is the socket's file.
func (p *UnixPath) is(name string) (bool, error) {
	id, mode, err := identify(name)
	return err == nil && mode&unix.S_IFMT == unix.S_IFSOCK && id == p.FileID, err
}
