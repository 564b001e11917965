package sys

import (
	"time"

	"golang.org/x/sys/unix"
)

// past is a deadline that has gone by, whatever the clock says.
var past = time.Unix(1, 0)

// Now is nanoseconds on CLOCK_BOOTTIME: it never steps, goes on while the machine
// sleeps, and means the same moment to every process until the next boot.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("clock_gettime CLOCK_BOOTTIME: " + err.Error()) // there since Linux 2.6.39
	}
	return ts.Nano()
}
