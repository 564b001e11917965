package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ControlSocket is the control socket's name in the runtime folder.
const ControlSocket = "control.sock"

// DefaultRuntimeDir is where the control socket is when nobody says otherwise:
// /run/sockd for root, else $XDG_RUNTIME_DIR/sockd, else /tmp/sockd-UID.
func DefaultRuntimeDir() string {
	if os.Getuid() == 0 {
		return "/run/sockd"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "sockd")
	}
	return fmt.Sprintf("/tmp/sockd-%d", os.Getuid())
}

// A runtimeDir is the locked folder of one supervisor.
type runtimeDir struct {
	path string
	lock *os.File
	made []string // folders made here, innermost first
}

// openRuntimeDir makes the folder, checks that it is ours alone, and locks it.
// An empty path is no folder at all.
func openRuntimeDir(path string) (*runtimeDir, error) {
	if path == "" {
		return &runtimeDir{}, nil
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("runtime folder: %w", err)
	}
	d := &runtimeDir{path: path}
	if err := d.make(); err != nil {
		return nil, fmt.Errorf("runtime folder: %w", err)
	}
	if err := d.take(); err != nil {
		d.removeMade()
		return nil, err
	}
	return d, nil
}

func (d *runtimeDir) make() error {
	for p := d.path; ; p = filepath.Dir(p) {
		if _, err := os.Lstat(p); !errors.Is(err, fs.ErrNotExist) || p == "/" {
			break
		}
		d.made = append(d.made, p)
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return err
	}
	st, err := os.Lstat(d.path)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is not a folder", d.path)
	}
	var us unix.Stat_t
	if err := unix.Lstat(d.path, &us); err != nil {
		return err
	}
	if int(us.Uid) != os.Getuid() {
		return fmt.Errorf("%s belongs to uid %d, not to us; choose another with --runtime-dir", d.path, us.Uid)
	}
	return os.Chmod(d.path, 0o700)
}

// take locks the folder, or says who has.
func (d *runtimeDir) take() error {
	name := filepath.Join(d.path, "lock")
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return fmt.Errorf("runtime folder: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			text := make([]byte, 32)
			n, _ := f.ReadAt(text, 0)
			f.Close()
			owner := "another sockd"
			if pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n]))); err == nil {
				owner = fmt.Sprintf("sockd with pid %d", pid)
			}
			return fmt.Errorf("%s is in use by %s; stop that one, or choose another folder with --runtime-dir", d.path, owner)
		}
		// The one before may have removed the file between our open and our lock.
		ours, err1 := f.Stat()
		there, err2 := os.Stat(name)
		if err1 == nil && err2 == nil && os.SameFile(ours, there) {
			d.lock = f
			break
		}
		f.Close()
	}
	d.lock.Truncate(0)
	d.lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // for people; the lock counts, also on a full disk
	return nil
}

// close removes the lock and the folders made here.
func (d *runtimeDir) close() {
	if d.lock == nil {
		return
	}
	os.Remove(filepath.Join(d.path, "lock"))
	d.lock.Close()
	d.removeMade()
}

func (d *runtimeDir) removeMade() {
	for _, p := range d.made {
		os.Remove(p) // only if empty
	}
}
