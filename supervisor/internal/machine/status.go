package machine

import "strconv"

// A Status is how a process ended: by exit with Code, or, if Signal is not 0, killed by it.
type Status struct {
	Code   int  `json:",omitempty"`
	Signal int  `json:",omitempty"`
	Core   bool `json:",omitempty"` // it left a core
}

// String says it as people do: "exit status 1", "killed by SIGSEGV (core dumped)".
func (s Status) String() string {
	if s.Signal == 0 {
		return "exit status " + strconv.Itoa(s.Code)
	}
	text := "killed by " + signalName(s.Signal)
	if s.Core {
		text += " (core dumped)"
	}
	return text
}

// Linux numbers, the same on amd64 and arm64.
var signalNames = [...]string{
	1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE",
	9: "SIGKILL", 10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM",
	16: "SIGSTKFLT", 17: "SIGCHLD", 18: "SIGCONT", 19: "SIGSTOP", 20: "SIGTSTP", 21: "SIGTTIN", 22: "SIGTTOU",
	23: "SIGURG", 24: "SIGXCPU", 25: "SIGXFSZ", 26: "SIGVTALRM", 27: "SIGPROF", 28: "SIGWINCH", 29: "SIGIO",
	30: "SIGPWR", 31: "SIGSYS",
}

func signalName(n int) string {
	if n > 0 && n < len(signalNames) {
		return signalNames[n]
	}
	const min, max = 34, 64 // a program's SIGRTMIN: the C library keeps 32 and 33 to itself
	switch {
	case n == min:
		return "SIGRTMIN"
	case n > min && n <= max:
		return "SIGRTMIN+" + strconv.Itoa(n-min)
	}
	return "signal " + strconv.Itoa(n)
}
