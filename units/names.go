package units

import (
	"slices"
	"strconv"
	"strings"
)

// What may be called how.

// ValidUnitName reports whether name can name a unit: [A-Za-z0-9][A-Za-z0-9_.-]{0,63}.
func ValidUnitName(name string) bool {
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return name != "" && len(name) <= 64
}

// ValidSocketName reports whether name can name a socket: printable ASCII without
// colon, at most 255 (sd_listen_fds_with_names(3)).
func ValidSocketName(name string) bool {
	for _, c := range []byte(name) {
		if c < ' ' || c > '~' || c == ':' {
			return false
		}
	}
	return name != "" && len(name) <= 255
}

// variable is the names a shell can use; systemd takes the same.
const variable = `^[A-Za-z_][A-Za-z0-9_]*$`

func isVariable(s string) bool {
	for i, c := range []byte(s) {
		if !(c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9') {
			return false
		}
	}
	return s != ""
}

// ours are set by sockd for every run; a unit cannot set them.
var ours = []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "FDSTORE", "WATCHDOG_USEC", "WATCHDOG_PID",
	"SOCKD_UNIT", "SOCKD_INSTANCE", "SOCKD_INSTANCES", "SOCKD_GENERATION", "SOCKD_CONNECTION_ID_PREFIX", "SOCKD_PID"}

// Reserved reports whether a variable is sockd's own: it is set for each run, or is not
// there, and neither environment nor a file of environment_files may set it.
func Reserved(name string) bool { return slices.Contains(ours, name) }

// parseOwner reads a user or group: a name as useradd allows it, or a number.
// Whether there is one is seen when it is used.
func parseOwner(s string) (string, *fault) {
	if isDigits(s) {
		// 4294967295 is "leave it" to chown(2).
		if n, err := strconv.ParseUint(s, 10, 32); err != nil || n == 1<<32-1 {
			return "", wrong("%s is not in 0..4294967294", s)
		}
		return s, nil
	}
	for i, c := range []byte(s) {
		if ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || i > 0 && (c == '-' || c == '.') ||
			i > 0 && c == '$' && i == len(s)-1; !ok {
			return "", wrong("%s is not a user or group name", quote(s))
		}
	}
	if s == "" || len(s) > 256 {
		return "", wrong("%s is not a user or group name", quote(s))
	}
	return s, nil
}

// parseDevice reads the name of a network device: what the kernel takes (dev_valid_name).
func parseDevice(s string) (string, *fault) {
	if s == "" || len(s) > 15 || s == "." || s == ".." || strings.ContainsAny(s, "/: \t\n\v\f\r\x00") {
		return "", wrong("%s is not a network device", quote(s))
	}
	return s, nil
}
