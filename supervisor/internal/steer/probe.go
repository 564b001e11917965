package steer

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// A Report is what this machine allows, for status and doctor. Its JSON is stable.
type Report struct {
	// Best is the best level that works.
	Best Level `json:"best"`
	// Levels are all three, best first.
	Levels []LevelReport `json:"levels"`
	// Migration is net.ipv4.tcp_migrate_req of this network namespace: whether
	// Flush and Leave can move connections at the levels below EBPF.
	Migration bool `json:"tcp_migrate_req"`
}

// A LevelReport is one level.
type LevelReport struct {
	Level  Level  `json:"level"`
	OK     bool   `json:"ok"`
	Needs  string `json:"needs"`            // what it takes
	Failed string `json:"failed,omitempty"` // the step and what the kernel said: "make map sockd_sockets: map create: operation not permitted (EPERM)"
	Err    error  `json:"-"`                // the same, with the errno
}

// Probe tries every level on a socket of its own, which it neither binds nor keeps.
// It takes about a millisecond and does not look at versions: kernels are patched,
// and containers forbid what the kernel could.
func Probe() Report {
	var r Report
	for _, l := range []struct {
		level Level
		needs string
		try   func(fd int) error
	}{
		{EBPF, "Linux 5.14, CAP_BPF", probeEBPF},
		{ClassicBPF, "Linux 4.6; moving connections: 5.14 and net.ipv4.tcp_migrate_req=1", probeClassic},
		{Hash, "Linux 3.9", func(int) error { return nil }},
	} {
		err := onSocket(l.try)
		one := LevelReport{Level: l.level, OK: err == nil, Needs: l.needs, Err: err}
		if err != nil {
			one.Failed = withErrno(err)
		} else if r.Best == Best {
			r.Best = l.level
		}
		r.Levels = append(r.Levels, one)
	}
	r.Migration = migrateReq()
	return r
}

// onSocket makes a socket to try things on: a program may be attached before bind.
func onSocket(try func(fd int) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return os.NewSyscallError("set SO_REUSEPORT", err)
	}
	return try(fd)
}

func probeEBPF(fd int) error {
	m, _, err := newMaps(0, nil)
	if err != nil {
		return err
	}
	defer m.close()
	prog, err := ebpf.NewProgram(program(m, true, 0))
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	defer prog.Close()
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, prog.FD())
	return os.NewSyscallError("set SO_ATTACH_REUSEPORT_EBPF", err)
}

func probeClassic(fd int) error {
	ins := classicProgram(new(table), kind{v6: true}, func(uint16) int { return 0 })
	prog := unix.SockFprog{Len: uint16(len(ins)), Filter: &ins[0]}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &prog)
	return os.NewSyscallError("set SO_ATTACH_REUSEPORT_CBPF", err)
}

// withErrno adds the symbol by which people search for an error.
func withErrno(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	return fmt.Sprintf("%v (%s)", err, unix.ErrnoName(errno))
}
