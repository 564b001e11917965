package trampoline

import "syscall"

const (
	sysPidfdOpen = 434        // the same on every architecture Go runs on
	pidfsMagic   = 0x50494446 // PID_FS_MAGIC, linux/magic.h
)

// pidfdID is the inode number of our own pidfd, by which no other process of this
// boot is known. It is "" where it means nothing, as before Linux 6.9, where all
// pidfds share one inode; and where a filter forbids to ask.
func pidfdID() string {
	r, _, err := syscall.RawSyscall(sysPidfdOpen, uintptr(syscall.Getpid()), 0, 0)
	if err != 0 {
		return ""
	}
	fd := int(r)
	defer syscall.Close(fd)
	var fs syscall.Statfs_t
	var st syscall.Stat_t
	if syscall.Fstatfs(fd, &fs) != nil || int64(fs.Type) != pidfsMagic || syscall.Fstat(fd, &st) != nil {
		return ""
	}
	return utoa(st.Ino)
}
