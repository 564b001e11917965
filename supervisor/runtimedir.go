package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/sys"
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

// AdhocPrefix begins the names of folders that `sockd run -l` makes below the usual one.
const AdhocPrefix = "run-"

// lockHeld is what the keeper holds the lock of the runtime folder under, so that
// it stays locked whoever supervises.
const lockHeld = "lock"

// lockName is the lock's name in the runtime folder.
const lockName = "lock"

// madeState is the name of the saved list of folders made for the runtime folder.
const madeState = "made/"

// A runtimeDir is the locked folder of one supervisor.
type runtimeDir struct {
	path string
	lock int      // descriptor of the lock file, which the keeper owns; -1: none
	made []string // folders made here, innermost first
	keep bool     // there are records of a killed keeper, which nobody has taken over yet
}

// openRuntimeDir makes the folder, checks that it is ours alone, and locks it,
// unless a supervisor before us has. An empty path is no folder at all.
func (s *Supervisor) openRuntimeDir(inv keeper.Inventory) (*runtimeDir, error) {
	d := &runtimeDir{lock: -1}
	if s.cfg.RuntimeDir == "" {
		return d, nil
	}
	var err error
	if d.path, err = filepath.Abs(s.cfg.RuntimeDir); err != nil {
		return nil, fmt.Errorf("runtime folder: %w", err)
	}
	_, ours := inv.Descriptors[keeper.RecordHeld]
	if _, err := os.Lstat(filepath.Join(d.path, keeper.RecordName)); err == nil && !ours {
		d.keep = true
	}
	d.made = strings.FieldsFunc(string(inv.States[madeState]), func(r rune) bool { return r == 0 })
	if fd, ok := inv.Descriptors[lockHeld]; ok {
		d.lock = fd
		return d, nil
	}
	if err := d.take(s.keeper, s.pid(), lockFile); err != nil {
		d.removeMade()
		if s.pid() == 1 && errors.Is(err, unix.EROFS) { // it is there to serve, and no second one can come
			s.log.Warn("no control socket: sockd cannot be asked anything; mount memory at "+filepath.Dir(d.path), "err", err)
			return &runtimeDir{lock: -1}, nil
		}
		return nil, err
	}
	return d, nil
}

func (d *runtimeDir) saveMade(k keeper.Keeper) error {
	if err := k.Save(madeState, []byte(strings.Join(d.made, "\x00"))); err != nil {
		return fmt.Errorf("keeper: %w", err)
	}
	return nil
}

// missingFolders are those that have to be made for path, innermost first.
func missingFolders(path string) (missing []string) {
	for p := path; ; p = filepath.Dir(p) {
		if _, err := os.Lstat(p); !errors.Is(err, fs.ErrNotExist) || p == "/" {
			return missing
		}
		missing = append(missing, p)
	}
}

// dirMode is the mode of folders that sockd makes.
const dirMode = 0o700

// make makes the folder, or checks one that is there. That is left as it is: what lies
// in it may be somebody else's.
func (d *runtimeDir) make(k keeper.Keeper) error {
	missing := missingFolders(d.path)
	for _, p := range missing {
		if !slices.Contains(d.made, p) {
			d.made = append(d.made, p)
		}
	}
	if len(missing) > 0 {
		if err := d.saveMade(k); err != nil {
			return err
		}
	}
	for _, p := range slices.Backward(missing) {
		err := os.Mkdir(p, dirMode)
		if err == nil {
			err = os.Chmod(p, dirMode) // the umask may have closed it even to us
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(d.path, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: d.path, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%s is not a folder", d.path)
	case int(st.Uid) != os.Getuid():
		return fmt.Errorf("%s belongs to uid %d, not to us; choose another with --runtime-dir", d.path, st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s may be written to by others (mode %#o), who could take the place of sockd there; choose another with --runtime-dir, such as %s, or chmod go-w it",
			d.path, st.Mode&0o7777, filepath.Join(d.path, "sockd"))
	}
	return nil
}

// beginnings is how often a folder may be removed by one that ends just while we begin.
const beginnings = 100

// take makes and locks the folder, or says who has.
func (d *runtimeDir) take(k keeper.Keeper, pid int, lock func(fd int) error) error {
	name := filepath.Join(d.path, lockName)
	fd := -1
	for try := 1; ; try++ {
		err := d.make(k)
		if err == nil {
			passing("runtime folder: made")
			if fd, err = unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600); err != nil {
				err = &os.PathError{Op: "open", Path: name, Err: err}
			}
		}
		if errors.Is(err, fs.ErrNotExist) && try < beginnings {
			continue
		}
		if err != nil {
			return fmt.Errorf("runtime folder: %w", err)
		}
		if err := lock(fd); err != nil {
			defer unix.Close(fd)
			return fmt.Errorf("%s is in use by %s; stop that one, or choose another folder with --runtime-dir", d.path, ownerIn(fd))
		}
		// The one before may have removed the file between our open and our lock.
		var ours, there unix.Stat_t
		if unix.Fstat(fd, &ours) == nil && unix.Stat(name, &there) == nil && ours.Ino == there.Ino && ours.Dev == there.Dev {
			break
		}
		unix.Close(fd)
	}
	// For people; the lock counts, also on a full disk.
	unix.Ftruncate(fd, 0)
	unix.Pwrite(fd, []byte(strconv.Itoa(pid)+"\n"), 0)
	if err := k.Hold(lockHeld, fd); err != nil {
		unix.Close(fd)
		return fmt.Errorf("runtime folder: %w", err)
	}
	d.lock = fd
	return nil
}

// lockPatience is how long a keeper may take to die that has been killed just now: on a
// busy machine it must first get a processor. A test has more.
var lockPatience = 2 * time.Second

// deadPatience is how long the supervisor of a dead keeper may take to notice: it has the
// lock too.
const deadPatience = 30 * time.Second

// tryLock locks the runtime folder, if nobody has.
func tryLock(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) }

// lockFile locks the runtime folder. It waits a moment for whoever has it, and
// longer if the keeper that is named there dies.
func lockFile(fd int) error {
	err := tryLock(fd)
	if err == nil {
		return nil
	}
	pid := pidIn(fd) // 0: it has the lock, and is about to say who it is
	locked, dead := make(chan error, 1), make(chan struct{})
	go func() {
		for {
			if err := unix.Flock(fd, unix.LOCK_EX); err != unix.EINTR {
				locked <- err
				return
			}
		}
	}()
	late := time.NewTimer(lockPatience)
	defer late.Stop()
	if pid != 0 {
		keeper, gone := sys.Open(pid)
		if gone == nil {
			defer keeper.Close() // ends the wait
			go func() {
				if keeper.WaitDead() == nil {
					close(dead)
				}
			}()
		} else if errors.Is(gone, unix.ESRCH) {
			close(dead)
		}
	}
	for {
		select {
		case err := <-locked:
			return err
		case <-dead:
			dead = nil
			late.Reset(deadPatience)
		case <-late.C:
			return err // and what waits for the lock gets nothing: its descriptor is closed
		}
	}
}

// pidIn is the pid written into a lock file; 0 if there is none.
func pidIn(fd int) int {
	text := make([]byte, 32)
	n, _ := unix.Pread(fd, text, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:max(n, 0)])))
	return max(pid, 0)
}

// ownerIn says who has written his pid into a lock file.
func ownerIn(fd int) string {
	if pid := pidIn(fd); pid != 0 {
		return fmt.Sprintf("sockd with pid %d", pid)
	}
	return "another sockd"
}

// close removes the lock and the folders made here.
func (d *runtimeDir) close(k keeper.Keeper) {
	if d.lock < 0 {
		return
	}
	if d.keep {
		k.Release(lockHeld)
		return
	}
	d.removeRecords(k)
	os.Remove(filepath.Join(d.path, lockName))
	k.Release(lockHeld)
	k.Save(madeState, nil)
	d.removeMade()
}

// removeMade removes the folders made here, as far as they are empty. Of several `sockd run
// -l` the last takes along the folder that the first has made for all.
func (d *runtimeDir) removeMade() {
	for _, p := range d.made {
		os.Remove(p)
	}
	above := filepath.Dir(d.path)
	var st unix.Stat_t
	if len(d.made) > 0 && strings.HasPrefix(filepath.Base(d.path), AdhocPrefix) &&
		unix.Lstat(above, &st) == nil && st.Mode&0o7777 == dirMode && int(st.Uid) == os.Getuid() {
		os.Remove(above)
	}
}
