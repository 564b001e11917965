package trampoline

import "syscall"

// The status pipe is close-on-exec: end of file after aboutToExec alone is
// success. End of file after nothing is a child that died before it got there.
const (
	aboutToExec = 0
	failed      = 1
)

// A Failure is the step of preparation that failed, on what, and why.
type Failure struct {
	Stage  string // "job", "descriptors", "cpu", "user", "directory", "exec"
	Detail string // a path, a user; "" if there is nothing to add
	Errno  syscall.Errno
	Text   string // in place of what Errno says, if not ""
}

// Error reads like "exec: ./web: no such file or directory".
func (f *Failure) Error() string { return f.Stage + ": " + f.Why() }

// Why is Error without the stage.
func (f *Failure) Why() string {
	why := f.Text
	if why == "" {
		why = f.Errno.Error()
	}
	if f.Detail == "" {
		return why
	}
	return f.Detail + ": " + why
}

// Unwrap gives the errno.
func (f *Failure) Unwrap() error { return f.Errno }

// MaxReport is the size of the longest report in bytes: less than a pipe takes at once.
const MaxReport = 1024

// ParseReport reads all that came through the status pipe. It says whether the
// child came as far as exec, and what failed, if anything was reported.
func ParseReport(b []byte) (reached bool, failure *Failure) {
	if len(b) > 0 && b[0] == aboutToExec {
		reached = true
		b = b[1:]
	}
	if len(b) < 6 || b[0] != failed || 6+int(b[5]) > len(b) {
		return reached, nil
	}
	n := 6 + int(b[5])
	return reached, &Failure{Stage: string(b[6:n]), Detail: string(b[n:]), Errno: syscall.Errno(u32(b[1:]))}
}

func fail(status int, stage, detail string, err syscall.Errno) {
	b := appendU32([]byte{failed}, uint32(err))
	b = append(b, byte(len(stage)))
	b = append(b, stage...)
	b = append(b, detail[:min(len(detail), MaxReport-len(b)-1)]...)
	write(status, b)
	syscall.Exit(127)
}

func write(fd int, b []byte) {
	for {
		if _, err := syscall.Write(fd, b); err != syscall.EINTR {
			return // no reader is left if the parent has gone; there is nobody to tell
		}
	}
}
