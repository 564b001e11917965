package activation

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// Watchdog tells the supervisor, until ctx is done, that the service is alive:
// WATCHDOG=1 at once and then at half the interval that it asked for. It returns
// nil at once if nobody asked (WATCHDOG_USEC is missing, or WATCHDOG_PID is another
// process), an error if the variables are wrong, and else, when ctx is done, nil or
// why the last ping was not sent. Run it in a goroutine:
//
//	go activation.Watchdog(ctx)
//
// It proves that the process is scheduled, no more. A service that knows better how
// it is sends Notify("WATCHDOG=1") from there, more often than each WATCHDOG_USEC
// microseconds, and does not call Watchdog: the variables stay in the environment then.
// Protocol: sd_watchdog_enabled(3).
func Watchdog(ctx context.Context) error {
	interval, err := watchdogInterval()
	if err != nil || interval == 0 {
		return err
	}
	return beat(ctx, interval, func() error { return notify(ctx, []string{"WATCHDOG=1"}) })
}

// beat pings at once and then at half the interval, until ctx is done. A failure may
// pass, as when the supervisor is being restarted; only the last one is returned.
func beat(ctx context.Context, interval time.Duration, ping func() error) error {
	ticker := time.NewTicker(interval / 2)
	defer ticker.Stop()
	for {
		err := ping()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return err
		}
	}
}

// watchdogInterval is read once, like all that is unset when read.
var watchdogInterval = sync.OnceValues(func() (time.Duration, error) {
	return parseWatchdog(consume("WATCHDOG_USEC", "WATCHDOG_PID"), os.Getpid())
})

// parseWatchdog returns the interval that env asks of process pid; 0 if none.
func parseWatchdog(env map[string]string, pid int) (time.Duration, error) {
	text, ok := env["WATCHDOG_USEC"]
	if !ok {
		return 0, nil
	}
	if other, ok := env["WATCHDOG_PID"]; ok {
		want, err := strconv.ParseInt(other, 10, 32)
		if err != nil || want <= 0 {
			return 0, fmt.Errorf("activation: WATCHDOG_PID=%q is not a process id", other)
		}
		if int(want) != pid {
			return 0, nil
		}
	}
	const most = int64(1<<63-1) / int64(time.Microsecond) // what a Duration holds
	usec, err := strconv.ParseInt(text, 10, 64)
	if err != nil || usec <= 0 || usec > most {
		return 0, fmt.Errorf("activation: WATCHDOG_USEC=%q is not a number of microseconds from 1 to %d", text, most)
	}
	return time.Duration(usec) * time.Microsecond, nil
}
