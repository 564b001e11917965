package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// sigRTMin is a program's first real-time signal: the C library keeps 32 and 33 to
// itself.
const sigRTMin = 34

// SignalName is how a signal is written in unit files: SIGTERM, SIGRTMIN+3; for one
// that has no name, "signal 32".
func SignalName(sig unix.Signal) string {
	switch name := unix.SignalName(sig); {
	case name != "":
		return name
	case sig == sigRTMin:
		return "SIGRTMIN"
	case sig > sigRTMin && sig <= 64:
		return fmt.Sprintf("SIGRTMIN+%d", sig-sigRTMin)
	}
	return fmt.Sprintf("signal %d", int(sig))
}
