package sys

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ChangeOptions brings a socket that Bind has made with options was to options is: it
// stays the same socket, and what is queued stays. An option no longer asked for gets
// back what a fresh socket has. Whatever cannot be changed is a warning, and stays:
// an option that must be set before bind, one that the kernel refuses.
func ChangeOptions(fd int, was, is *Options) (warnings []string) {
	k, err := kindOf(fd)
	if err != nil {
		return []string{err.Error()}
	}
	tosChanged := false
	for i := range options {
		row := &options[i]
		if !row.has(k) {
			continue
		}
		before, asked := row.want(was, k)
		value, asks := row.want(is, k)
		lost := row.key == "priority" && asks && tosChanged // which has set it as well
		if asked == asks && before == value && (row.key != "bind_to_device" || was.BindToDevice == is.BindToDevice) && !lost {
			continue
		}
		tosChanged = tosChanged || row.key == "ip_tos"
		switch row.key {
		case "reuse_addr", "reuse_port", "ipv6_only", "free_bind", "transparent", "bind_to_device":
			warnings = append(warnings, row.key+": stays as it was when the socket was bound (to change it, remove the socket and add it again)")
			continue
		}
		warning, err := row.change(fd, is, k, value, asks)
		if err != nil {
			warning = (&OptionError{Key: row.key, Name: row.name, Err: err}).Error()
		}
		if warning != "" {
			warnings = append(warnings, warning)
		}
	}
	if was.Backlog != is.Backlog {
		if listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listening != 0 {
			if err := ListenAgain(fd, is.Backlog); err != nil {
				warnings = append(warnings, fmt.Sprintf("backlog: %v", err))
			}
		}
	}
	return warnings
}

// change sets one option, or sets it back.
func (row *option) change(fd int, o *Options, k kind, value int, asked bool) (warning string, err error) {
	if asked && row.set != nil {
		return row.set(fd, o)
	}
	if !asked {
		fresh, err := unix.Socket(k.family, k.typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return "", os.NewSyscallError("socket", err)
		}
		defer unix.Close(fresh)
		if value, err = unix.GetsockoptInt(fresh, row.level, row.opt); err != nil {
			return "", err
		}
		if row.set != nil {
			value /= 2 // a buffer, of which the kernel tells the double
		}
	}
	return "", unix.SetsockoptInt(fd, row.level, row.opt, value)
}
