package activation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// mostBytes is the longest notification: systemd drops a longer one whole, and so
// would its lines be lost without a word (PIPE_BUF; sd_notify(3)).
const mostBytes = 4096

// patience is how long a notification may wait for room in the supervisor's queue.
// A service must not hang because its supervisor does.
const patience = 10 * time.Second

// notifySocket is where the supervisor listens; "" if nobody asked to be told.
var notifySocket = sync.OnceValue(func() string {
	return consume("NOTIFY_SOCKET")["NOTIFY_SOCKET"]
})

// Ready tells the supervisor that the service answers: READY=1. Call it when the
// listeners are being served, and again at the end of a reload. Like all
// notifications it returns nil and does nothing if nobody asked to be told.
func Ready() error { return Notify("READY=1") }

// Reloading tells the supervisor that the service has begun to read its
// configuration again: RELOADING=1, with the moment, so that it can be told from an
// earlier one. Ready ends it.
func Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("activation: clock: %w", err)
	}
	return Notify("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
}

// Stopping tells the supervisor that the service has begun to leave: STOPPING=1. It
// is final.
func Stopping() error { return Notify("STOPPING=1") }

// Status tells the supervisor, in a line for people, what the service is doing. The
// arguments are those of fmt.Sprintf. Newlines become spaces; what does not fit
// into one notification (4,096 bytes) is cut off.
func Status(format string, args ...any) error {
	text := strings.ToValidUTF8(fmt.Sprintf(format, args...), "\uFFFD")
	text = "STATUS=" + strings.NewReplacer("\n", " ", "\x00", " ").Replace(text)
	if len(text) > mostBytes {
		cut := mostBytes
		for !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut]
	}
	return Notify(text)
}

// Notify sends lines of the form KEY=value in one notification; sd_notify(3) lists
// the keys. It returns nil if nobody asked to be told, and an error if a line is
// malformed, all are too long together (4,096 bytes), or sending failed.
func Notify(lines ...string) error { return notify(lines) }

// Barrier waits until the supervisor has read every notification sent so far, so
// that what follows (an exit, above all) cannot overtake them. It returns the
// context's error if that comes first. Key: BARRIER=1, sd_notify_barrier(3).
func Barrier(ctx context.Context) error {
	if notifySocket() == "" {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("activation: notify: %w", err)
	}
	defer r.Close()
	err = notify([]string{"BARRIER=1"}, w)
	w.Close() // from here on only the supervisor has the writing end
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var b [1]byte
	_, err = r.Read(b[:]) // ends when the supervisor closes its end
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("activation: notify: barrier: %w", ctx.Err())
	}
	return nil
}

// notify sends lines, and with them duplicates of files.
func notify(lines []string, files ...*os.File) error {
	path := notifySocket()
	if path == "" {
		return nil
	}
	text := strings.Join(lines, "\n")
	if err := checkLines(lines, text); err != nil {
		return err
	}
	if path[0] != '/' && path[0] != '@' {
		return fmt.Errorf("activation: NOTIFY_SOCKET=%q is neither a path nor an abstract name", path)
	}
	if err := send(path, text, files); err != nil {
		return fmt.Errorf("activation: notify %s: %w", path, err)
	}
	return nil
}

// send sends one datagram. Package net cannot send descriptors from a datagram
// socket that is connected.
func send(path, text string, files []*os.File) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	timeout := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	oob, done, err := rights(files)
	if err != nil {
		return err
	}
	defer done()
	for {
		err := unix.Sendmsg(fd, []byte(text), oob, &unix.SockaddrUnix{Name: path}, 0)
		if err != unix.EINTR {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// checkLines refuses what a supervisor would drop or read as something else.
func checkLines(lines []string, text string) error {
	for _, line := range lines {
		key, _, ok := strings.Cut(line, "=")
		if !ok || key == "" || strings.ContainsAny(line, "\n\x00") {
			return fmt.Errorf("activation: notify: %q is not one line of the form KEY=value", line)
		}
	}
	if len(lines) == 0 || len(text) > mostBytes {
		return fmt.Errorf("activation: notify: %d bytes are not in 1..%d", len(text), mostBytes)
	}
	return nil
}
