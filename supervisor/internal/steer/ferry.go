package steer

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// ferry carries a program into a group whose sockets are all locked: by one more
// socket, which is there for a moment. Whoever comes to it in that moment is moved by
// the program when it is shut down.
func (s *steering) ferry(set func(fd int) error) error {
	model := -1
	for _, fd := range s.fds {
		model = max(model, fd)
	}
	if model < 0 {
		return errors.New("no socket to take after")
	}
	fd, err := s.twin(model)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := set(fd); err != nil {
		return err
	}
	if s.kind.stream {
		return os.NewSyscallError("shutdown", unix.Shutdown(fd, unix.SHUT_RD))
	}
	return nil
}

// twin binds a socket beside model, in the same group.
func (s *steering) twin(model int) (int, error) {
	domain, typ := unix.AF_INET, unix.SOCK_DGRAM
	if s.kind.v6 {
		domain = unix.AF_INET6
	}
	if s.kind.stream {
		typ = unix.SOCK_STREAM
	}
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := s.likeTwin(fd, model); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// likeTwin sets what makes a group, and what the address may need, and binds.
func (s *steering) likeTwin(fd, model int) error {
	for _, opt := range []struct{ level, name int }{
		{unix.SOL_SOCKET, unix.SO_REUSEPORT},
		{unix.SOL_SOCKET, unix.SO_REUSEADDR},
		{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY},
		{unix.IPPROTO_IP, unix.IP_FREEBIND},
		{unix.IPPROTO_IP, unix.IP_TRANSPARENT},
	} {
		if opt.level == unix.IPPROTO_IPV6 && !s.kind.v6 {
			continue
		}
		value, err := unix.GetsockoptInt(model, opt.level, opt.name)
		if err == nil && value != 0 || opt.name == unix.IPV6_V6ONLY && opt.level == unix.IPPROTO_IPV6 {
			err = unix.SetsockoptInt(fd, opt.level, opt.name, value)
		}
		if err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if device, err := unix.GetsockoptString(model, unix.SOL_SOCKET, unix.SO_BINDTODEVICE); err == nil && device != "" {
		if err := unix.BindToDevice(fd, device); err != nil {
			return os.NewSyscallError("set SO_BINDTODEVICE", err)
		}
	}
	name, err := unix.Getsockname(model)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	if err := unix.Bind(fd, name); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if !s.kind.stream {
		return nil
	}
	return os.NewSyscallError("listen", unix.Listen(fd, maxBacklog))
}
