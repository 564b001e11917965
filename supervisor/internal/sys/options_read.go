package sys

import (
	"fmt"
	"sort"

	"golang.org/x/sys/unix"
)

// OptionsOf reads back every option that Bind can set, and O_NONBLOCK, as sorted
// NAME=value lines. Two readings of one socket are equal unless somebody has
// changed it: the flag and the options belong to the open file description and
// are shared by everybody who holds it.
func OptionsOf(fd int) ([]string, error) {
	k, err := kindOf(fd)
	if err != nil {
		return nil, err
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return nil, err
	}
	list := []string{fmt.Sprintf("O_NONBLOCK=%d", number(flags&unix.O_NONBLOCK != 0))}
	for i := range options {
		row := &options[i]
		if !row.has(k) {
			continue
		}
		value, err := row.read(fd)
		if err == unix.ENOPROTOOPT || err == unix.EOPNOTSUPP {
			continue // this kernel has no such option
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", row.name, err)
		}
		list = append(list, row.name+"="+value)
	}
	sort.Strings(list)
	return list, nil
}

func (row *option) read(fd int) (string, error) {
	if row.opt == unix.SO_BINDTODEVICE && row.level == unix.SOL_SOCKET {
		return unix.GetsockoptString(fd, row.level, row.opt)
	}
	n, err := unix.GetsockoptInt(fd, row.level, row.opt)
	return fmt.Sprint(n), err
}

// kindOf asks the kernel what a descriptor is: the one who holds it may not know.
func kindOf(fd int) (kind, error) {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return kind{}, err
	}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return kind{}, err
	}
	return kind{family: family, typ: typ}, nil
}
