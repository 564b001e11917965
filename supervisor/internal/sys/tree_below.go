package sys

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// lookBelow is lookAround for a subreaper: whatever runs have left behind is below
// us, so that nothing else needs to be looked at. Below a child that is known, but
// has not been asked about, is only what belongs to it; that is left out.
//
// As there, children are listed until there is no new one: who dies after he was
// listed has left his children to us, and they are in the next list.
func (o *Orphans) lookBelow(marks []Mark) (snapshot, error) {
	self := os.Getpid()
	s, _ := readStat(self)
	snap := snapshot{self: &s}
	asked := map[int]bool{}
	for _, m := range marks {
		asked[m.Main] = true
	}
	var add func(parent, round int) (fresh bool, err error)
	add = func(parent, round int) (fresh bool, err error) {
		list := childrenOf
		if parent == self {
			list = o.childrenOfOurs
		}
		pids, err := list(parent)
		for _, pid := range pids {
			if _, seen := snap[pid]; seen {
				continue
			}
			if parent == self && !asked[pid] && isDeadChild(pid) {
				snap[pid] = gone
				fresh = fresh || round < rounds
				continue
			}
			fresh = true
			s, _ := readStat(pid)
			snap[pid] = &s
			if s.dead() { // its children are ours by now
				continue
			}
			if asked[pid] || !o.knows(pid) {
				if _, err := add(pid, round); err != nil {
					return true, err
				}
			}
		}
		return fresh, err
	}
	return snap, untilNobodyIsNew(func(round int) (bool, error) { return add(self, round) })
}

// gone is one who belongs to nobody, but has been seen.
var gone = &stat{}

// rounds is how many lists with dead orphans nobody has seen make us ask for another.
// If there are some in each of so many, they are a stream of them, which other runs
// leave behind and which may never end; and not what was in between when a process
// of the runs in question made itself a daemon, for that is one or two.
const rounds = 8

// childrenOfOurs is childrenOf us with nobody missing. In lists of others that does
// no harm: where there was a parent, there is another look.
func (o *Orphans) childrenOfOurs(self int) ([]int, error) {
	o.sweeping.Lock()
	defer o.sweeping.Unlock()
	for range 3 {
		if pids, exact, err := o.children(); exact || err != nil {
			return pids, err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return childrenOf(self)
}

// errNoChildren means that the kernel does not list children (CONFIG_PROC_CHILDREN).
var errNoChildren = errors.New("no list of children in /proc")

// childrenOf lists the children of a process, dead or alive; none if it has gone.
// The kernel lists them by the thread they belong to.
func childrenOf(pid int) ([]int, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	threads, err := os.ReadDir(dir + "/task")
	if err != nil {
		return nil, unlessGone(err)
	}
	var pids []int
	for _, t := range threads {
		pids, err = appendNumbers(pids, dir+"/task/"+t.Name()+"/children")
		if errors.Is(err, os.ErrNotExist) && pid == os.Getpid() && t.Name() == strconv.Itoa(pid) {
			return nil, errNoChildren // our first thread cannot have gone
		}
		if err = unlessGone(err); err != nil {
			return nil, err
		}
	}
	return pids, nil
}

// unlessGone keeps of an error what does not mean that the process, or the thread, has
// ended: it may have children that could not be listed for want of descriptors or memory.
func unlessGone(err error) error {
	for _, short := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		if errors.Is(err, short) {
			return err
		}
	}
	return nil
}

// appendNumbers reads a file of numbers with blanks between them. It makes no garbage
// of it, for there may be thousands: what collects garbage stops everything else.
func appendNumbers(list []int, file string) ([]int, error) {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return list, err
	}
	defer unix.Close(fd)
	var b [4096]byte // the kernel gives no more at once
	number := 0
	for {
		n, err := unix.Read(fd, b[:])
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			return list, err
		}
		for _, c := range b[:n] {
			switch {
			case c >= '0' && c <= '9':
				number = 10*number + int(c-'0')
			case number > 0:
				list, number = append(list, number), 0
			}
		}
	}
}
