package trampoline

import (
	"syscall"
	"unsafe"
)

// become changes groups, group and user of this thread, in the order in which
// each is still allowed.
func become(c *Credential) (what string, err syscall.Errno) {
	if err := setGroups(c.Groups); err != 0 && !sameGroups(c.Groups) {
		return "supplementary groups", err
	}
	gid, uid := uintptr(c.GID), uintptr(c.UID)
	if _, _, err := syscall.RawSyscall(sysSetresgid, gid, gid, gid); err != 0 {
		return "gid " + itoa(int(c.GID)), err
	}
	if _, _, err := syscall.RawSyscall(sysSetresuid, uid, uid, uid); err != 0 {
		return "uid " + itoa(int(c.UID)), err
	}
	return "", 0
}

func setGroups(groups []uint32) syscall.Errno {
	var first unsafe.Pointer
	if len(groups) > 0 {
		first = unsafe.Pointer(&groups[0])
	}
	_, _, err := syscall.RawSyscall(sysSetgroups, uintptr(len(groups)), uintptr(first), 0)
	return err
}

// sameGroups tells whether the wanted supplementary groups are those we have: who
// may not set groups may still run programs as himself.
func sameGroups(want []uint32) bool {
	have, err := syscall.Getgroups()
	if err != nil {
		return false
	}
	for _, g := range want {
		if !contains(have, int(g)) {
			return false
		}
	}
	for _, g := range have {
		if !contains(want, uint32(g)) {
			return false
		}
	}
	return true
}

func contains[T comparable](list []T, v T) bool {
	for _, w := range list {
		if w == v {
			return true
		}
	}
	return false
}
