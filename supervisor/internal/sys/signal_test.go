package sys

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestSignalName(t *testing.T) {
	for sig, want := range map[unix.Signal]string{1: "SIGHUP", 31: "SIGSYS", 32: "signal 32", 33: "signal 33", 34: "SIGRTMIN", 37: "SIGRTMIN+3", 64: "SIGRTMIN+30", 65: "signal 65"} {
		if got := SignalName(sig); got != want {
			t.Errorf("%d: %q, want %q", int(sig), got, want)
		}
	}
}
