package sys

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// zombieStatus reads how a dead process ended that is not our child and that its
// parent has not reaped: some parents take their time, and it stands in /proc as
// long (exit_code in proc_pid_stat(5), Linux 3.5). The pidfd tells that it is still
// that process. Not ok if the kernel does not say it to us.
func (p *Process) zombieStatus(pidfd int) (st Status, ok bool) {
	dir := "/proc/" + strconv.Itoa(p.Pid)
	var b [1024]byte
	line := b[:readSmall(dir+"/stat", b[:])]
	s, ok := parseStat(line)
	if !ok || s.state != 'Z' {
		return st, false
	}
	f := bytes.Fields(line[bytes.LastIndexByte(line, ')')+1:]) // f[0] is field 3
	if len(f) < 50 {
		return st, false
	}
	code, err := strconv.Atoi(string(f[49]))
	if err != nil {
		return st, false
	}
	var dirStat unix.Stat_t
	if uid := os.Geteuid(); code == 0 && uid != 0 && (unix.Stat(dir, &dirStat) != nil || int(dirStat.Uid) != uid) {
		return st, false // 0 is also what is shown to those who may not know
	}
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 0); err != nil || n == 0 || poll[0].Revents&unix.POLLHUP != 0 {
		return st, false // reaped meanwhile: what was read may be another's
	}
	ws := unix.WaitStatus(code)
	if ws.Signaled() {
		return Status{Signal: int(ws.Signal()), Core: ws.CoreDump()}, true
	}
	return Status{Code: ws.ExitStatus()}, true
}
