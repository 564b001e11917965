package sys

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// What it takes to know processes again that a dead process has left behind.

// An Identity tells a process from every other of this boot.
type Identity struct {
	Pid   int
	Inode uint64 `json:",omitempty"` // of its pidfd, where that is its own (Linux 6.9)
	Start uint64 `json:",omitempty"` // else its start in clock ticks since boot
}

const pidfsMagic = 0x50494446 // PID_FS_MAGIC, linux/magic.h

// pidfs tells whether every process has an inode of its own.
var pidfs = sync.OnceValue(func() bool {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && int64(st.Type) == pidfsMagic
})

// Identity is what p is known by.
func (p *Process) Identity() Identity {
	id := Identity{Pid: p.Pid}
	if fd := p.Handle(); fd >= 0 && pidfs() {
		if inode, err := Inode(fd); err == nil {
			id.Inode = inode
			return id
		}
	}
	s, _ := readStat(p.Pid)
	id.Start = s.start
	return id
}

// Find opens the process that id is of; nil if that has ended.
func (id Identity) Find() *Process {
	if id.Pid <= 1 {
		return nil
	}
	p, err := Open(id.Pid)
	if err != nil {
		return nil
	}
	if p.Identity() != id || !p.Alive() {
		p.Close()
		return nil
	}
	return p
}

// FindMarked finds the process that leads its session and was started with the
// variable env; nil if there is none.
func FindMarked(env string) *Process {
	snap, err := lookAround()
	if err != nil || env == "" {
		return nil
	}
	for pid, s := range snap {
		if s.session != pid || s.dead() || pid <= 1 || pid == os.Getpid() {
			continue
		}
		if !bytes.Contains(append([]byte{0}, environment(s)...), []byte("\x00"+env+"\x00")) {
			continue
		}
		if p, err := Open(pid); err == nil {
			if now, ok := readStat(pid); ok && now.start == s.start {
				return p
			}
			p.Close()
		}
	}
	return nil
}

// Boot is the kernel's name for this boot.
func Boot() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// TakeSocket brings back the socket with that cookie from p, which should have it
// as descriptor fd, or else under another number.
func (p *Process) TakeSocket(fd int, cookie uint64) (int, error) {
	pidfd := p.Handle()
	if pidfd < 0 {
		return -1, fmt.Errorf("process %d: no pidfd", p.Pid)
	}
	try := func(fd int) (int, error) {
		got, err := unix.PidfdGetfd(pidfd, fd, 0)
		if err != nil {
			return -1, fmt.Errorf("descriptor %d of process %d: %w", fd, p.Pid, err)
		}
		if have, err := Cookie(got); err == nil && have == cookie {
			return got, nil
		}
		unix.Close(got)
		return -1, fmt.Errorf("descriptor %d of process %d is another file", fd, p.Pid)
	}
	got, err := try(fd)
	if err == nil || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ESRCH) {
		return got, err
	}
	dir := "/proc/" + strconv.Itoa(p.Pid) + "/fd"
	list, _ := os.ReadDir(dir)
	for _, e := range list {
		if n, err := strconv.Atoi(e.Name()); err == nil && n != fd {
			if link, _ := os.Readlink(dir + "/" + e.Name()); strings.HasPrefix(link, "socket:") {
				if got, err := try(n); err == nil {
					return got, nil
				}
			}
		}
	}
	return -1, fmt.Errorf("%w, and none of its others is it", err)
}

// ReopenPipe opens the reading end of the pipe with that inode which p writes to as
// its standard output or error. What was written and not read is still in it.
func (p *Process) ReopenPipe(inode uint64) (int, error) {
	for _, n := range []int{1, 2} {
		name := fmt.Sprintf("/proc/%d/fd/%d", p.Pid, n)
		if link, _ := os.Readlink(name); link != fmt.Sprintf("pipe:[%d]", inode) {
			continue
		}
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			if have, err := Inode(fd); err == nil && have == inode {
				return fd, nil
			}
			unix.Close(fd)
		}
	}
	return -1, fmt.Errorf("process %d does not write to pipe %d any more", p.Pid, inode)
}
