package sys

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Descriptors never stay, whatever is sent with them and however it is read.
func TestNotifyLeaksNothing(t *testing.T) {
	c := newNotifyCase(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "leak"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd := int(file.Fd())
	many := make([]int, 253) // SCM_MAX_FD
	for i := range many {
		many[i] = fd
	}
	for _, row := range []struct {
		name, text string
		fds        []int
		refused    string
	}{
		{"one", "READY=1", []int{fd}, "1 descriptors closed"},
		{"the most there can be", "READY=1", many, "253 descriptors closed"},
		{"with an over-long text", strings.Repeat("x", 5000), []int{fd, fd}, "longer than 4096 bytes"},
		{"store", "FDSTORE=1\nFDNAME=x", []int{fd, fd}, ""},
		{"store with a wrong name", "FDSTORE=1\nFDNAME=a:b", []int{fd}, `FDNAME: "a:b" is no name for a descriptor`},
		{"removal with descriptors", "FDSTOREREMOVE=1\nFDSTORE=1\nFDNAME=x", []int{fd}, "1 descriptors closed"},
		{"removal without a name", "FDSTOREREMOVE=1", nil, "FDSTOREREMOVE=1 needs FDNAME"},
		{"store of nothing", "FDSTORE=1", nil, "FDSTORE=1 came without a descriptor"},
		{"two at a barrier", "BARRIER=1", []int{fd, fd}, "BARRIER=1 needs one descriptor and came with 2"},
		{"zero length", "", []int{fd}, "1 descriptors closed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c.send(row.text, row.fds...)
			for _, peek := range []bool{true, true, false} {
				m := c.read(peek)
				if m.Refused != row.refused || m.Descriptors != len(row.fds) {
					t.Errorf("peek %v: %q, %d descriptors; want %q, %d", peek, m.Refused, m.Descriptors, row.refused, len(row.fds))
				}
				awaitAside(t)
				if n := countLinks(t, file.Name()); n != 1 {
					t.Errorf("peek %v: %d descriptors of the file", peek, n)
				}
			}
			c.empty()
		})
	}
}

// When the table is full, the kernel cuts the control data off after some
// descriptors: the message does not count, and those are closed too.
func TestNotifyCutDescriptors(t *testing.T) {
	c := newNotifyCase(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "leak"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd := int(file.Fd())
	c.send("READY=1", fd, fd, fd, fd, fd, fd, fd, fd)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// The lowest free number, plus three, is the new end of the table.
	free, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	tight := limit
	tight.Cur = uint64(free + 3)
	limitDescriptors(t, &tight)
	peeked, err1 := ReadNotify(c.fd, true)
	taken, err2 := ReadNotify(c.fd, false)
	limitDescriptors(t, &limit)
	for _, m := range []Message{peeked, taken} {
		if m.Refused != "its descriptors could not be received" || m.Fields.Ready || m.Descriptors >= 8 {
			t.Errorf("%+v (%v, %v)", m, err1, err2)
		}
	}
	awaitAside(t)
	if n := countLinks(t, file.Name()); n != 1 {
		t.Errorf("%d descriptors of the file", n)
	}
	c.send("READY=1")
	if m := c.read(false); !m.Fields.Ready {
		t.Errorf("afterwards: %+v", m)
	}
}

// limitDescriptors goes around package syscall, which would forget what it has to
// give children back (other tests look at that).
func limitDescriptors(t *testing.T, limit *unix.Rlimit) {
	t.Helper()
	if _, _, err := unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(limit)), 0, 0, 0); err != 0 {
		t.Fatal(err)
	}
}
