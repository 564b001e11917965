package units

import (
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// parseDuration reads Go's notation, with a unit always: "30s", "1h30m", "0s".
func parseDuration(s string) (time.Duration, *fault) {
	d, err := time.ParseDuration(s)
	_, number := strconv.ParseFloat(s, 64)
	switch {
	case number == nil && strings.Trim(s, "0123456789.") == "":
		return 0, wrong("%s is not a duration", quote(s)).write(`"%ss"`, s)
	case err != nil || s[0] == '+' || s[0] == '.':
		return 0, wrong("%s is not a duration", quote(s)).write(`one such as "500ms", "30s" or "1h30m"`)
	case d < 0:
		return 0, wrong("%s is negative", quote(s))
	}
	return d, nil
}

// formatDuration writes d without needless zeros: 1h rather than 1h0m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// The units of sizes, largest first. Powers of 1024 only: nobody has to guess.
var sizeUnits = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// parseSize reads a whole number with a unit: "64KiB".
func parseSize(s string) (int64, *fault) {
	digits := strings.TrimRight(s, "BGKMibgkm")
	n, err := strconv.ParseInt(digits, 10, 64)
	unit := s[len(digits):]
	if err != nil || digits == "" || digits[0] == '+' || digits[0] == '-' {
		return 0, wrong("%s is not a size", quote(s)).write(`one such as "64KiB" or "8MiB"`)
	}
	for _, u := range sizeUnits {
		switch {
		case unit == u.name && n > math.MaxInt64/u.bytes:
			return 0, wrong("%s is too large", quote(s))
		case unit == u.name:
			return n * u.bytes, nil
		}
	}
	if n == 0 {
		return 0, wrong("%s is not a size", quote(s)).write(`one such as "64KiB" or "8MiB"`)
	}
	meant := "B"
	if unit != "" {
		if i := strings.IndexByte("KMG", strings.ToUpper(unit)[0]); i >= 0 {
			meant = "KMG"[i:i+1] + "iB"
		}
	}
	return 0, wrong("%s is not a size", quote(s)).write(`"%d%s"`, n, meant)
}

func formatSize(n int64) string {
	for _, u := range sizeUnits {
		if n != 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

// parseMode reads permission bits as chmod writes them: "0660".
func parseMode(s string) (fs.FileMode, *fault) {
	n, err := strconv.ParseUint(s, 8, 32)
	switch {
	case err != nil || len(s) < 3 || len(s) > 4:
		return 0, wrong("%s is not a mode", quote(s)).write(`one such as "0660"`)
	case n > 0o777:
		return 0, wrong("%s is not in 0000..0777", quote(s))
	}
	return fs.FileMode(n), nil
}

func formatMode(m fs.FileMode) string {
	s := strconv.FormatUint(uint64(m.Perm()), 8)
	return strings.Repeat("0", 4-len(s)) + s
}

// Linux numbers, the same on amd64 and arm64, by signal(7).
var signalNames = []string{
	1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE",
	9: "SIGKILL", 10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM",
	16: "SIGSTKFLT", 17: "SIGCHLD", 18: "SIGCONT", 19: "SIGSTOP", 20: "SIGTSTP", 21: "SIGTTIN", 22: "SIGTTOU",
	23: "SIGURG", 24: "SIGXCPU", 25: "SIGXFSZ", 26: "SIGVTALRM", 27: "SIGPROF", 28: "SIGWINCH", 29: "SIGIO",
	30: "SIGPWR", 31: "SIGSYS",
}

// The C library keeps the first two real-time signals for itself: a program's
// SIGRTMIN is 34.
const sigRTMin, sigRTMax = 34, 64

// parseSignal reads a name: "SIGTERM", "SIGRTMIN+3".
func parseSignal(s string) (syscall.Signal, *fault) {
	for n, name := range signalNames {
		if s == name && n > 0 {
			return syscall.Signal(n), nil
		}
	}
	if rest, ok := strings.CutPrefix(s, "SIGRTMIN"); ok {
		n, err := strconv.Atoi(strings.TrimPrefix(rest, "+"))
		if rest == "" {
			return sigRTMin, nil
		}
		if err == nil && rest[0] == '+' && rest[1] != '+' && rest[1] != '-' && n <= sigRTMax-sigRTMin {
			return syscall.Signal(sigRTMin + n), nil
		}
	}
	f := wrong("%s is not a signal", quote(s))
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < len(signalNames) {
		return 0, f.write(`"%s"`, signalNames[n])
	}
	if name := strings.ToUpper(s); slices.Contains(signalNames, "SIG"+name) {
		return 0, f.write(`"SIG%s"`, name)
	}
	f.hint = didYouMean(s, signalNames[1:])
	return 0, f
}

func formatSignal(s syscall.Signal) string {
	switch n := int(s); {
	case n > 0 && n < len(signalNames):
		return signalNames[n]
	case n == sigRTMin:
		return "SIGRTMIN"
	case n > sigRTMin:
		return "SIGRTMIN+" + strconv.Itoa(n-sigRTMin)
	}
	return ""
}
