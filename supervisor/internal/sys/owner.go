package sys

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An Owner is who holds an address that could not be taken.
type Owner struct {
	UID      uint32 // of the socket
	Inode    uint64 // of the socket; 0: no process holds it any more
	Pid      int    // a process that holds it; 0: not visible from here
	Name     string // that process's command name
	Self     bool   // this process holds it: compare Inode with Inode(fd)
	TimeWait bool   // only the remains of a connection, for a minute at most
}

// String ends the sentence "address already in use by".
func (o *Owner) String() string {
	switch {
	case o.TimeWait:
		return "a connection in TIME_WAIT"
	case o.Self:
		return fmt.Sprintf("another socket of sockd itself (inode %d)", o.Inode)
	case o.Pid != 0:
		return fmt.Sprintf("%s (pid %d, uid %d)", o.Name, o.Pid, o.UID)
	case o.Inode == 0:
		return fmt.Sprintf("a connection of uid %d that no process holds any more", o.UID)
	}
	return fmt.Sprintf("a process of uid %d that is not visible from here (socket inode %d)", o.UID, o.Inode)
}

// lookFor bounds the search through /proc: naming the owner is a kindness, and
// the supervisor's goroutine, which binds on reload, has to answer others.
var lookFor = 200 * time.Millisecond

// inetOwner finds who holds the address of t; nil if nobody can be named.
func inetOwner(t target) *Owner {
	proto := uint8(unix.IPPROTO_TCP)
	if t.typ == unix.SOCK_DGRAM {
		proto = unix.IPPROTO_UDP
	}
	var best *diagSocket
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		list, err := diagInet(family, proto, t.addr.Port())
		if err != nil {
			continue
		}
		for i := range list {
			s := &list[i]
			if overlap(t, s) && (best == nil || s.rank() > best.rank()) {
				best = s
			}
		}
	}
	if best == nil {
		return nil
	}
	o := &Owner{UID: best.uid, Inode: uint64(best.inode), TimeWait: best.state == tcpTimeWait}
	o.find()
	return o
}

// overlap says whether two addresses of one port conflict. On Linux a wildcard
// overlaps with every address, and a dual-stack socket with IPv4 (kernel.md, 1).
func overlap(t target, s *diagSocket) bool {
	mine, theirs := t.addr.Addr().WithZone(""), s.addr
	switch {
	case t.family == unix.AF_INET && s.family == unix.AF_INET6 && s.v6only,
		t.family == unix.AF_INET6 && s.family == unix.AF_INET && t.v6only:
		return false
	case t.family == int(s.family):
		return mine == theirs || mine.IsUnspecified() || theirs.IsUnspecified()
	}
	// One of each family: they meet where the IPv6 one takes IPv4 too.
	six, four := mine, theirs
	if t.family == unix.AF_INET {
		six, four = theirs, mine
	}
	if six.Is4In6() {
		return four.IsUnspecified() || six.Unmap() == four
	}
	return six.IsUnspecified()
}

// find looks for a process that holds the socket: this one first, then by pid.
func (o *Owner) find() {
	if o.Inode == 0 {
		return
	}
	link := fmt.Sprintf("socket:[%d]", o.Inode)
	if holds("/proc/self", link) {
		o.Self, o.Pid = true, os.Getpid()
	} else {
		o.Pid = whoHolds(link, time.Now().Add(lookFor))
	}
	if o.Pid != 0 {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", o.Pid))
		o.Name = strings.TrimSpace(string(name))
		if err != nil || o.Name == "" {
			o.Name = "a process"
		}
	}
}

func whoHolds(link string, until time.Time) int {
	dir, err := os.Open("/proc")
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids) // a parent before its workers
	for _, pid := range pids {
		if holds(filepath.Join("/proc", strconv.Itoa(pid)), link) {
			return pid
		}
		if time.Now().After(until) {
			return 0
		}
	}
	return 0
}

// holds says whether a process, named by its folder in /proc, has the socket open.
func holds(proc, link string) bool {
	dir, err := os.Open(proc + "/fd")
	if err != nil {
		return false
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		if err != nil {
			return false
		}
		for _, name := range names {
			if to, err := os.Readlink(proc + "/fd/" + name); err == nil && to == link {
				return true
			}
		}
	}
}

// rank orders what may be in the way: a listener before a bound socket before a
// connection before the remains of one.
func (s *diagSocket) rank() int {
	switch {
	case s.state == tcpListen:
		return 4
	case s.state == tcpTimeWait:
		return 0
	case s.inode == 0:
		return 1
	case s.remote == (netip.AddrPort{}) || s.remote.Port() == 0:
		return 3
	}
	return 2
}
