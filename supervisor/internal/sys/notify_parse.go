package sys

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// maxNotify is the longest datagram that is read, in bytes, as in systemd.
const maxNotify = 4096

// A Notification is what one datagram says, by the rules of sd_notify(3). Where a
// key stands twice the first one counts, also if it is wrong. Who receives it
// handles MainPID first and Stopping before Ready before Reloading.
type Notification struct {
	Ready, Reloading, Stopping bool
	MonotonicUsec              *uint64 // CLOCK_MONOTONIC; with Reloading
	Status                     *string // "" clears it; nil: not mentioned
	Errno                      *int    // 0 clears it
	ExitStatus                 *int    // 0..255
	MainPID                    int     // 0: not mentioned
	Watchdog                   bool    // alive
	Trigger                    bool    // WATCHDOG=trigger: act as if it had expired
	WatchdogUsec               *uint64 // the new interval; 0 is off
	ExtendTimeoutUsec          uint64  // at least so long from now; 0: not mentioned
	Barrier                    bool    // its descriptor is closed when this is read

	FDStore, FDStoreRemove bool   // keep the descriptors; or part from all called FDName
	FDName                 string // "": not mentioned
	FDPoll                 bool   // part from it when it hangs up; true unless FDPOLL=0

	// Problems lists values that were wrong and are ignored; the rest counts.
	Problems []string
}

// ParseNotify reads one datagram. Unknown keys are ignored, wrong values are
// listed in Problems. An error means that nothing of it counts: it is longer than
// 4096 bytes, has a NUL elsewhere than at its end, or a BARRIER beside other keys.
// An empty datagram says nothing and is harmless.
func ParseNotify(b []byte) (Notification, error) {
	n := Notification{FDPoll: true}
	if len(b) > maxNotify {
		return n, fmt.Errorf("longer than %d bytes", maxNotify)
	}
	text := strings.TrimSuffix(string(b), "\x00")
	if strings.ContainsRune(text, 0) {
		return n, errors.New("a NUL byte inside")
	}
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	seen := make(map[string]bool)
	for _, line := range lines {
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		if flag := n.flag(line); flag != nil {
			*flag = true // may be anywhere, also after READY=0
			continue
		}
		if seen[key] {
			continue
		}
		seen[key] = true
		if err := n.set(key, value); err != nil {
			n.Problems = append(n.Problems, fmt.Sprintf("%s: %v", key, err))
		}
	}
	if n.Barrier && len(lines) != 1 {
		return Notification{FDPoll: true}, errors.New("BARRIER=1 must be the only key")
	}
	return n, nil
}

// flag finds keys that mean something with one value only.
func (n *Notification) flag(line string) *bool {
	switch line {
	case "READY=1":
		return &n.Ready
	case "RELOADING=1":
		return &n.Reloading
	case "STOPPING=1":
		return &n.Stopping
	case "BARRIER=1":
		return &n.Barrier
	case "FDSTORE=1":
		return &n.FDStore
	case "FDSTOREREMOVE=1":
		return &n.FDStoreRemove
	}
	return nil
}

func (n *Notification) set(key, value string) (err error) {
	switch key {
	case "STATUS":
		if !utf8.ValidString(value) {
			return errors.New("not UTF-8")
		}
		n.Status = &value
	case "MONOTONIC_USEC":
		n.MonotonicUsec, err = pointer(usec(value))
	case "WATCHDOG_USEC":
		n.WatchdogUsec, err = pointer(usec(value))
	case "EXTEND_TIMEOUT_USEC":
		n.ExtendTimeoutUsec, err = usec(value)
		if err == nil && n.ExtendTimeoutUsec == 0 {
			return errors.New("0 extends nothing")
		}
	case "MAINPID":
		n.MainPID, err = decimal(value, 1, math.MaxInt32)
	case "EXIT_STATUS":
		n.ExitStatus, err = pointer(decimal(value, 0, 255))
	case "ERRNO":
		n.Errno, err = pointer(errno(value))
	case "WATCHDOG":
		switch value {
		case "1":
			n.Watchdog = true
		case "trigger":
			n.Trigger = true
		default:
			return fmt.Errorf("%s is neither 1 nor trigger", quote(value))
		}
	case "FDNAME":
		if !validFDName(value) {
			return fmt.Errorf("%s is no name for a descriptor", quote(value))
		}
		n.FDName = value
	case "FDPOLL":
		n.FDPoll = value != "0"
	}
	return err
}

func pointer[T any](v T, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	return &v, nil
}

// usec reads microseconds. What a time.Duration cannot hold, 292 years, is cut to
// what it can: 2^64-1 is how systemd writes "for ever".
func usec(s string) (uint64, error) {
	if !digits(s) {
		return 0, fmt.Errorf("%s is not a number of microseconds", quote(s))
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s does not fit in 64 bits", quote(s))
	}
	return min(n, math.MaxInt64/1000), nil
}

func decimal(s string, lo, hi int) (int, error) {
	n, err := strconv.Atoi(s)
	if !digits(s) || err != nil || n < lo || n > hi {
		return 0, fmt.Errorf("%s is not in %d..%d", quote(s), lo, hi)
	}
	return n, nil
}

// errno takes a number or a symbol: 2, ENOENT.
func errno(s string) (int, error) {
	if digits(s) {
		return decimal(s, 0, 4095)
	}
	if strings.HasPrefix(s, "E") {
		for e := unix.Errno(1); e < 256; e++ {
			if unix.ErrnoName(e) == s {
				return int(e), nil
			}
		}
	}
	return 0, fmt.Errorf("%s is no error number and no error name", quote(s))
}

// digits refuses what strconv lets pass: signs.
func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// validFDName follows sd_pid_notify_with_fds(3): printable ASCII without colon, up to 255.
func validFDName(s string) bool {
	return s != "" && len(s) <= 255 && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f || r == ':' }) < 0
}

// quote shows a value, which may be long or odd, in a message.
func quote(s string) string {
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return strconv.Quote(s)
}
