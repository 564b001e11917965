package sys

import (
	"os"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Who is stopped by a signal is stopped; who is held by a debugger is not.
func TestStopped(t *testing.T) {
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	attr := &os.ProcAttr{Sys: &syscall.SysProcAttr{Ptrace: true}}
	child, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, attr)
	if err != nil {
		t.Skip("ptrace: ", err)
	}
	wait := func(options int) (ws unix.WaitStatus) {
		if _, err := unix.Wait4(child.Pid, &ws, options, nil); err != nil {
			t.Fatal(err)
		}
		return ws
	}
	defer wait(0)
	defer child.Kill()
	p, err := Open(child.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if !wait(unix.WUNTRACED).Stopped() {
		t.Fatal("not held after its exec")
	}
	if p.Stopped() {
		t.Error("held by a debugger, and taken for stopped")
	}
	if err := unix.PtraceDetach(child.Pid); err != nil {
		t.Fatal(err)
	}
	if err := child.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if !wait(unix.WUNTRACED).Stopped() || !p.Stopped() {
		t.Error("not stopped by SIGSTOP")
	}
}
