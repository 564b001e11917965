package activation

import (
	"cmp"
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

// longestPath is what a Unix socket's address holds beside the byte that ends it (unix(7)).
const longestPath = 107

// patience is how long a notification may wait for room in the supervisor's queue.
var patience = 10 * time.Second // longer in tests

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
//
// Where the supervisor's queue is full it waits for room, ten seconds at most: a
// service must not hang because its supervisor does.
func Notify(lines ...string) error { return notify(context.Background(), lines) }

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
	err = notify(ctx, []string{"BARRIER=1"}, w)
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

// notify sends lines, and with them duplicates of files. It waits for room until ctx
// is done, or patience is at its end.
func notify(ctx context.Context, lines []string, files ...*os.File) error {
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
	if len(path) > longestPath {
		return fmt.Errorf("activation: NOTIFY_SOCKET=%.40q… has %d bytes, and a Unix socket's path %d at most", path, len(path), longestPath)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errFull)
	defer cancel()
	if err := send(ctx, path, text, files); err != nil {
		return fmt.Errorf("activation: notify %s: %w", path, err)
	}
	return nil
}

// errFull is why a notification that found no room was given up.
var errFull = fmt.Errorf("the supervisor has not read for %v: %w", patience, unix.EAGAIN)

// send sends one datagram. Package net cannot send descriptors from a datagram
// socket that is connected, and only one that is can wait for room without a thread.
func send(ctx context.Context, path, text string, files []*os.File) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	sock := os.NewFile(uintptr(fd), path)
	defer sock.Close()
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return os.NewSyscallError("connect", err)
	}
	oob, done, err := rights(files)
	if err != nil {
		return err
	}
	defer done()
	var failed error
	try := func(fd uintptr) bool {
		failed = unix.Sendmsg(int(fd), []byte(text), oob, nil, 0)
		for failed == unix.EINTR {
			failed = unix.Sendmsg(int(fd), []byte(text), oob, nil, 0)
		}
		return failed != unix.EAGAIN
	}
	if try(uintptr(fd)) {
		return os.NewSyscallError("sendmsg", failed)
	}
	stop := context.AfterFunc(ctx, func() { sock.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := sock.SyscallConn()
	if err == nil {
		err = raw.Write(try)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return context.Cause(ctx)
	}
	return cmp.Or(err, os.NewSyscallError("sendmsg", failed))
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
