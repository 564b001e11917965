package steer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// memoryName is the name under which a classic group's memory is held.
const memoryName = "order"

// A memory is a file without a name that outlives the supervisor in the keeper's
// hands. It tells a successor in which order the kernel has the group's sockets,
// which nobody can read from the kernel. Sockets are known by their cookies.
//
// That a socket has left is written before it may listen again. So after a crash at
// any instant the sockets themselves tell the rest: a member that does not listen has
// left, and one that listens and is no member has come last.
type memory struct{ fd int }

// Where things stand in the file. All numbers are in host order: it never leaves
// the machine.
const (
	memoryMagic = 0x736f636b_64000001 // "sockd", version 1
	atHead      = 0                   // magic, number of members
	atMembers   = 16                  // cookies
	atTable     = 12288
)

func newMemory() (*memory, error) {
	fd, err := unix.MemfdCreate("sockd-steer", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return &memory{fd}, nil
}

func adoptMemory(held int) (*memory, error) {
	fd, err := unix.FcntlInt(uintptr(held), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	return &memory{fd}, nil
}

func (m *memory) close() error {
	if m == nil {
		return nil
	}
	return unix.Close(m.fd)
}

// record writes what is so now. The order comes last: a table that is newer than the
// order is right too, as it names places.
func (m *memory) record(o order, t *table) error {
	list := make([]byte, 0, 2*Slots)
	for _, place := range t {
		list = binary.NativeEndian.AppendUint16(list, place)
	}
	if err := m.write(list, atTable); err != nil {
		return err
	}
	b := binary.NativeEndian.AppendUint64(nil, memoryMagic)
	b = binary.NativeEndian.AppendUint64(b, uint64(len(o)))
	for _, fd := range o {
		c, err := cookie(fd)
		if err != nil {
			return err
		}
		b = binary.NativeEndian.AppendUint64(b, c)
	}
	return m.write(b, atHead)
}

// recall is the order as it is now: fds are the sockets there are, in says which of
// them are in the kernel's group.
func (m *memory) recall(fds []int, in func(fd int) bool) (order, error) {
	b, err := m.read(0, atTable)
	if err != nil {
		return nil, err
	}
	word := func(i int) uint64 { return binary.NativeEndian.Uint64(b[8*i:]) }
	n := word(1)
	if word(0) != memoryMagic || n > MaxPlaces {
		return nil, errors.New("not a memory of this version")
	}
	byCookie := make(map[uint64]int)
	for _, fd := range fds {
		if fd < 0 {
			continue
		}
		c, err := cookie(fd)
		if err != nil {
			return nil, err
		}
		byCookie[c] = fd
	}
	var o order
	for i := range int(n) {
		fd, ok := byCookie[word(atMembers/8+i)]
		if !ok {
			return nil, fmt.Errorf("member %d of %d is not among the sockets", i, n)
		}
		o.join(fd)
	}
	for _, fd := range slices.Clone(o) {
		if !in(fd) {
			o.leave(fd)
		}
	}
	for _, fd := range fds {
		if fd >= 0 && in(fd) && o.index(fd) < 0 {
			o.join(fd)
		}
	}
	return o, nil
}

func (m *memory) table() (*table, error) {
	b, err := m.read(atTable, 2*Slots)
	if err != nil {
		return nil, err
	}
	t := new(table)
	for slot := range t {
		t[slot] = min(binary.NativeEndian.Uint16(b[2*slot:]), MaxPlaces-1)
	}
	return t, nil
}

func (m *memory) write(b []byte, at int64) error {
	_, err := unix.Pwrite(m.fd, b, at)
	return os.NewSyscallError("write steering memory", err)
}

func (m *memory) read(at int64, size int) ([]byte, error) {
	b := make([]byte, size)
	n, err := unix.Pread(m.fd, b, at)
	if err != nil {
		return nil, os.NewSyscallError("read steering memory", err)
	}
	if n != size {
		return nil, errors.New("steering memory is short")
	}
	return b, nil
}

// cookie is the kernel's number of a socket, the same in every process.
func cookie(fd int) (uint64, error) {
	c, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	return c, os.NewSyscallError("get SO_COOKIE", err)
}
