package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A proc is a child of the keeper, as /proc tells of it.
type proc struct {
	pid        int
	supervisor bool
	service    string // its unit, of a service of ours
	zombie     bool
}

// childrenOf lists the children of a process: those of each of its threads.
func childrenOf(pid int) []proc {
	var all []proc
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range files {
		text, _ := os.ReadFile(f)
		for _, w := range strings.Fields(string(text)) {
			child, _ := strconv.Atoi(w)
			all = append(all, look(child))
		}
	}
	return all
}

func look(pid int) proc {
	p := proc{pid: pid}
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if i := bytes.LastIndexByte(stat, ')'); i > 0 && i+2 < len(stat) {
		p.zombie = stat[i+2] == 'Z'
	}
	env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	chaos := ""
	for v := range bytes.SplitSeq(env, []byte{0}) {
		name, value, _ := strings.Cut(string(v), "=")
		switch name {
		case "SOCKD_KEEPER_FD":
			p.supervisor = true
		case "SOCKD_UNIT":
			p.service = value
		case "CHAOS_DIR":
			chaos = value
		}
	}
	if chaos == "" {
		p.service = ""
	}
	return p
}

// parentOf is the parent of a process; 0 if there is no such process.
func parentOf(pid int) int {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if i := bytes.LastIndexByte(stat, ')'); i > 0 {
		if f := strings.Fields(string(stat[i+1:])); len(f) > 1 {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	return 0
}

// A handle is a child of the keeper that is surely meant, whatever becomes of its pid.
type handle struct{ pid, fd int }

// hold opens a process if it is a child of parent and fits.
func hold(parent, pid int, fits func(proc) bool) (h handle, ok bool) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return h, false
	}
	if parentOf(pid) != parent || !fits(look(pid)) {
		unix.Close(fd)
		return h, false
	}
	return handle{pid, fd}, true
}

func (h handle) signal(sig unix.Signal) error { return unix.PidfdSendSignal(h.fd, sig, nil, 0) }

// dead waits until the process has ended.
func (h handle) dead(patience time.Duration) bool {
	late := time.Now().Add(patience)
	for {
		left := time.Until(late)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}, max(0, int(left.Milliseconds())))
		if n > 0 {
			return true
		}
		if err != unix.EINTR && left <= 0 {
			return false
		}
	}
}

func (h handle) close() { unix.Close(h.fd) }

// socketsIn are the inodes of the sockets a process has, and how many descriptors.
func socketsIn(pid int) (inodes map[string]bool, descriptors int) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, _ := os.ReadDir(dir)
	inodes = map[string]bool{}
	for _, n := range names {
		if link, err := os.Readlink(filepath.Join(dir, n.Name())); err == nil && strings.HasPrefix(link, "socket:") {
			inodes[strings.Trim(link, "socket:[]")] = true
		}
	}
	return inodes, len(names)
}
