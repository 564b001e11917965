package sys

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// A User is what /etc/passwd and /etc/group say of one.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary, with GID, in rising order
	Home     string
}

// ErrNoEntry means that a number is fit for a user, but nothing says which groups
// go with it. The User returned with it has its UID.
var ErrNoEntry = errors.New("no entry in the user database: say which group as well")

// LookupUser finds a user by name or number.
//
// The two files are read here and not by os/user, which may hand the question to
// the C library and thereby make sockd depend on it. Users known to a directory
// service only are to be given by number.
func LookupUser(name string) (User, error) { return lookupUser("/etc/passwd", "/etc/group", name) }

// LookupGroup finds a group by name or number.
func LookupGroup(name string) (gid uint32, err error) { return lookupGroup("/etc/group", name) }

// UserName is the name of the user with that number; "" if none is known.
func UserName(uid int) string {
	lines, _ := colonFile("/etc/passwd") // a machine without it knows no names
	for _, f := range lines {
		if n, ok := fieldID(f, 2); ok && int(n) == uid {
			return f[0]
		}
	}
	return ""
}

func lookupUser(passwd, group, name string) (User, error) {
	lines, err := colonFile(passwd)
	if err != nil {
		return User{}, err
	}
	number, isNumber := id(name)
	for _, f := range lines {
		if len(f) < 6 {
			continue
		}
		uid, ok1 := id(f[2])
		gid, ok2 := id(f[3])
		if !ok1 || !ok2 || f[0] != name && !(isNumber && uid == number) {
			continue
		}
		u := User{UID: uid, GID: gid, Home: f[5]}
		u.Groups, err = groupsOf(group, f[0], gid)
		return u, err
	}
	if isNumber {
		return User{UID: number}, fmt.Errorf("user %s: %w", name, ErrNoEntry)
	}
	return User{}, fmt.Errorf("unknown user %s", name)
}

func lookupGroup(group, name string) (uint32, error) {
	if gid, ok := id(name); ok {
		return gid, nil
	}
	lines, err := colonFile(group)
	if err != nil {
		return 0, err
	}
	for _, f := range lines {
		if gid, ok := fieldID(f, 2); ok && f[0] == name {
			return gid, nil
		}
	}
	return 0, fmt.Errorf("unknown group %s", name)
}

// groupsOf lists the groups that name user as a member, and gid.
func groupsOf(group, user string, gid uint32) ([]uint32, error) {
	lines, err := colonFile(group)
	if err != nil {
		return nil, err
	}
	groups := []uint32{gid}
	for _, f := range lines {
		if g, ok := fieldID(f, 2); ok && len(f) > 3 && slices.Contains(strings.Split(f[3], ","), user) {
			groups = append(groups, g)
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups), nil
}

func colonFile(name string) ([][]string, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var lines [][]string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line != "" && line[0] != '#' && line[0] != '+' && line[0] != '-' { // the last two are NIS
			lines = append(lines, strings.Split(line, ":"))
		}
	}
	return lines, nil
}

func fieldID(f []string, i int) (uint32, bool) {
	if i >= len(f) {
		return 0, false
	}
	return id(f[i])
}

// id reads a user or group number. The last one means "no change" to the kernel.
func id(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n != 1<<32-1
}
