package sys

import "golang.org/x/sys/unix"

// Recognise takes up the file at the public name, though it is not the one that is known,
// if the kernel says that fd is bound to it (sock_diag(7), UNIX_DIAG_VFS): it was made anew by a supervisor
// that has died before it could say so. Where the kernel does not tell, it is false.
func (p *UnixPath) Recognise(fd int) bool {
	id, mode, err := identify(p.Path)
	if err != nil || mode&unix.S_IFMT != unix.S_IFSOCK {
		return false
	}
	inode, err := Inode(fd)
	if err != nil {
		return false
	}
	list, err := diagUnixSockets(uint32(inode))
	if err != nil || len(list) != 1 || !list[0].boundTo(id) {
		return false
	}
	p.FileID = id
	for _, hidden := range []string{p.Hidden, p.hiddenName()} {
		if ours, _ := p.is(hidden); ours {
			p.Hidden, p.NoHidden = hidden, ""
			return true
		}
	}
	p.hide()
	return true
}

// Evict removes what lies at the public name, if it is a socket with nobody behind it.
// Anything else stays and is an error.
func (p *UnixPath) Evict() error { return p.evict() }
