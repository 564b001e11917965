package supervisor

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"golang.org/x/sys/unix"
)

// A doorkeeper sees that the runtime folder stays what it is: cleaners of temporary
// files, and people, remove such things under a running sockd. Nobody could reach it
// then, and a second one could start on the same folder.
type doorkeeper struct {
	s     *Supervisor
	dir   *runtimeDir
	ln    net.Listener // the control socket
	serve func(net.Listener)
	file  *os.File // inotify(7)
	ino   uint64   // of the control socket's path
}

// keepDoor begins to look after the folder, until stop is called.
func (s *Supervisor) keepDoor(dir *runtimeDir, inv keeper.Inventory, ln net.Listener, serve func(net.Listener)) (stop func()) {
	file, err := s.openInotify(doorHeld, inv)
	if err != nil {
		s.log.Warn("runtime folder not watched", "err", err)
		return func() {}
	}
	d := &doorkeeper{s: s, dir: dir, ln: ln, serve: serve, file: file}
	d.ino, _ = inodeAt(d.control())
	d.look()
	go d.keep()
	return func() { s.closeInotify(doorHeld, file) }
}

func (d *doorkeeper) control() string { return filepath.Join(d.dir.path, ControlSocket) }

// look watches the folder that is there now.
func (d *doorkeeper) look() {
	raw, err := d.file.SyscallConn()
	if err == nil {
		raw.Control(func(fd uintptr) {
			_, err = unix.InotifyAddWatch(int(fd), d.dir.path, unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_ONLYDIR)
		})
	}
	if err != nil {
		d.s.log.Warn("runtime folder not watched", "err", err)
	}
}

// keep restores after each change that matters.
func (d *doorkeeper) keep() {
	buf := make([]byte, 16<<10)
	for heard := false; ; heard = true {
		if d.gone() || heard && d.lost() {
			d.s.ask(context.Background(), d.restore)
		}
		for {
			n, err := d.file.Read(buf)
			if err != nil {
				return
			}
			if concerns(buf[:n]) {
				break
			}
		}
	}
}

// concerns tells whether events are about what is to stay. A record that is written anew
// comes under another name and takes the old one's place.
func concerns(events []byte) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		mask, size := binary.NativeEndian.Uint32(events[4:]), int(binary.NativeEndian.Uint32(events[12:]))
		name := string(bytes.TrimRight(events[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size], "\x00"))
		if mask&(unix.IN_DELETE|unix.IN_MOVED_FROM) == 0 || slices.Contains(staying, name) {
			return true
		}
		events = events[unix.SizeofInotifyEvent+size:]
	}
	return false
}

// staying are the names of what stays in the folder.
var staying = []string{ControlSocket, lockName, keeper.RecordName, socketsName}

// gone tells whether the path of the control socket or of the lock is another's.
func (d *doorkeeper) gone() bool {
	var lock unix.Stat_t
	unix.Fstat(d.dir.lock, &lock)
	there, _ := inodeAt(filepath.Join(d.dir.path, lockName))
	control, _ := inodeAt(d.control())
	return control == 0 || control != d.ino || there != lock.Ino
}

// lost tells whether a record is missing. Without it, whoever starts when the keeper has
// been killed starts a second copy of what goes on.
func (d *doorkeeper) lost() bool {
	runs, _ := inodeAt(filepath.Join(d.dir.path, keeper.RecordName))
	sockets, _ := inodeAt(filepath.Join(d.dir.path, socketsName))
	return runs == 0 || sockets == 0
}

// restore makes again what is missing. It runs in the loop.
func (d *doorkeeper) restore() error {
	if d.s.stopping {
		return nil
	}
	var err error
	because := "the control socket or the lock"
	switch {
	case d.gone():
		err = d.reopen()
	case d.lost():
		because = "a record"
		err = d.s.keepRecords(d.dir)
	default:
		return nil
	}
	if err != nil {
		d.s.log.Error("runtime folder lost", "path", d.dir.path, "err", err)
		return nil
	}
	d.s.log.Warn("runtime folder restored", "path", d.dir.path, "because", "somebody has removed "+because)
	return nil
}

// reopen makes the folder again and opens a new control socket in it; who has connected
// to the old one keeps his connection.
func (d *doorkeeper) reopen() error {
	if err := d.dir.make(d.s.keeper); err != nil {
		return fmt.Errorf("runtime folder: %w", err)
	}
	d.look()
	var lock unix.Stat_t
	unix.Fstat(d.dir.lock, &lock)
	if there, _ := inodeAt(filepath.Join(d.dir.path, lockName)); there != lock.Ino {
		if err := d.dir.take(d.s.keeper, d.s.pid()); err != nil {
			return err
		}
	}
	ln, err := d.s.makeControl(d.control())
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	d.ino, _ = inodeAt(d.control())
	go d.serve(ln)
	d.ln.Close()
	d.ln = ln
	return d.s.keepRecords(d.dir)
}

// inodeAt is the inode of what lies at path; 0 if there is nothing.
func inodeAt(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}
