package sys

import (
	"errors"
	"os"
	"strconv"
	"strings"
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
	var add func(parent int) (fresh bool, err error)
	add = func(parent int) (fresh bool, err error) {
		list := childrenOf
		if parent == self {
			list = o.childrenOfOurs
		}
		pids, err := list(parent)
		for _, pid := range pids {
			if _, seen := snap[pid]; seen {
				continue
			}
			fresh = true
			s, _ := readStat(pid)
			snap[pid] = &s
			if s.dead() { // its children are ours by now
				continue
			}
			if asked[pid] || !o.knows(pid) {
				if _, err := add(pid); err != nil {
					return true, err
				}
			}
		}
		return fresh, err
	}
	for {
		if fresh, err := add(self); err != nil || !fresh {
			return snap, err
		}
	}
}

// childrenOfOurs is childrenOf us while nothing is reaped: one that goes from the
// list while the kernel writes it can make it leave out another (children in
// proc_pid_task(5)). In lists of others that does no harm: where there was a
// parent, there is another look.
func (o *Orphans) childrenOfOurs(self int) ([]int, error) {
	o.forks.Lock()
	defer o.forks.Unlock()
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
		return nil, nil
	}
	var pids []int
	for _, t := range threads {
		b, err := os.ReadFile(dir + "/task/" + t.Name() + "/children")
		if errors.Is(err, os.ErrNotExist) && pid == os.Getpid() && t.Name() == strconv.Itoa(pid) {
			return nil, errNoChildren // our first thread cannot have gone
		}
		for field := range strings.FieldsSeq(string(b)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids, nil
}
