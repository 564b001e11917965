package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/sockd/sockd/supervisor/internal/sys"
	"golang.org/x/sys/unix"
)

var (
	// ErrNotRunning is returned when nobody serves the control socket.
	ErrNotRunning = errors.New("sockd is not running")
	// ErrDenied is returned when the control socket is there, and not for this user.
	ErrDenied = errors.New("permission denied")
)

// A dialError is why nobody could be asked, without what package http says about it.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// dial connects to the control socket of a runtime folder.
func dial(ctx context.Context, dir string) (net.Conn, error) {
	var d net.Dialer
	path := filepath.Join(dir, ControlSocket)
	conn, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%s: %w: %s", path, ErrDenied, strangers(path))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		err = fmt.Errorf("%w: no answer at %s", ErrNotRunning, path)
	case errors.Is(err, syscall.EINVAL):
		err = fmt.Errorf("%w: no socket can have a path as long as %s", ErrNotRunning, path)
	case errors.Is(err, syscall.EAGAIN): // its queue is full
		err = fmt.Errorf("%w %s", errBusy, path)
	}
	return nil, &dialError{err}
}

// strangers says whose a path is, as far as can be seen, and who we are.
func strangers(path string) string {
	us := userName(os.Geteuid())
	for ; ; path = filepath.Dir(path) {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil {
			return fmt.Sprintf("%s belongs to %s, and you are %s", path, userName(int(st.Uid)), us)
		}
		if path == "/" || path == "." {
			return "you are " + us
		}
	}
}

// userName is a user's name, where there is one, and number.
func userName(uid int) string {
	if name := sys.UserName(uid); name != "" {
		return fmt.Sprintf("%s (uid %d)", name, uid)
	}
	return fmt.Sprintf("uid %d", uid)
}
