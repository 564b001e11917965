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
	"time"

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
	deaf  bool     // the folder is not watched
	said  string   // why it could not be restored the last time; ""
}

// What could not be restored, for a full disk, a want of descriptors or another sockd that
// has taken the folder, is tried again after doorPatience, then twice that, and so on.
const (
	doorPatience    = 100 * time.Millisecond
	doorPatienceMax = 30 * time.Second
)

// keepDoor begins to look after the folder, until stop is called.
func (s *Supervisor) keepDoor(dir *runtimeDir, inv keeper.Inventory, ln net.Listener, serve func(net.Listener)) (stop func()) {
	file, err := s.openInotify(doorHeld, inv)
	if err != nil {
		s.log.Warn("runtime folder not watched", "err", err)
		return func() {}
	}
	d := &doorkeeper{s: s, dir: dir, ln: ln, serve: serve, file: file}
	d.ino, _ = inodeAt(d.control())
	if err := d.look(); err != nil {
		s.log.Warn("runtime folder not watched", "err", err)
	}
	go d.keep()
	return func() { s.closeInotify(doorHeld, file) }
}

func (d *doorkeeper) control() string { return filepath.Join(d.dir.path, ControlSocket) }

// look watches the folder that is there now.
func (d *doorkeeper) look() error {
	raw, err := d.file.SyscallConn()
	if err == nil {
		raw.Control(func(fd uintptr) {
			_, err = unix.InotifyAddWatch(int(fd), d.dir.path, unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_ONLYDIR)
		})
	}
	if d.deaf = err != nil; d.deaf {
		return fmt.Errorf("not watched: %w", err)
	}
	return nil
}

// keep restores after each change that matters. After a try that has failed it waits, and
// hears of nothing meanwhile: what the try has done is no reason for another one.
func (d *doorkeeper) keep() {
	buf := make([]byte, 16<<10)
	wait := time.Duration(0)
	for heard := false; ; heard = true {
		var err error
		if heard {
			d.look() // what lies there may have been moved into another folder
		}
		if d.deaf || d.gone() || heard && d.lost() {
			err = d.s.askSafe(context.Background(), d.restore)
		}
		if err == nil {
			if wait = 0; !d.hear(buf) {
				return
			}
			continue
		}
		wait = min(max(2*wait, doorPatience), doorPatienceMax)
		select {
		case <-time.After(wait):
		case <-d.s.quit:
			return
		}
	}
}

// hear waits for a change that matters; it is false at the end.
func (d *doorkeeper) hear(buf []byte) bool {
	for {
		n, err := d.file.Read(buf)
		if err != nil {
			return false
		}
		if concerns(buf[:n]) {
			return true
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
	because := ""
	switch {
	case d.gone():
		because = "the control socket or the lock"
		err = d.reopen()
	case d.lost():
		because = "a record"
		err = d.record()
	}
	if err == nil && d.deaf {
		err = d.look()
	}
	if err != nil {
		if text := err.Error(); text != d.said {
			d.said = text
			d.s.log.Error("runtime folder lost", "path", d.dir.path, "err", err)
		}
		return err
	}
	if d.said = ""; because == "" {
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
	var lock unix.Stat_t
	unix.Fstat(d.dir.lock, &lock)
	if there, _ := inodeAt(filepath.Join(d.dir.path, lockName)); there != lock.Ino {
		if err := d.dir.take(d.s.keeper, d.s.pid(), tryLock); err != nil { // the loop does not wait for others
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
	if err := d.look(); err != nil { // it may be another since it was made: whoever removed the old one was not through
		return err
	}
	return d.record()
}

// record writes the records.
func (d *doorkeeper) record() error {
	if err := d.s.keepRecords(d.dir); err != nil {
		return err
	}
	_, err := inodeAt(filepath.Join(d.dir.path, socketsName))
	return err
}

// inodeAt is the inode of what lies at path; 0 if there is nothing.
func inodeAt(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}
