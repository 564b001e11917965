package activation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoStore says that nobody keeps descriptors for this process: it has no
// supervisor, or its unit has no fd_store_max.
var ErrNoStore = errors.New("activation: nobody keeps descriptors for this process")

// mostFiles is how many descriptors go into one message (SCM_MAX_FD, unix(7)).
const mostFiles = 253

// Store has the supervisor keep duplicates of files under a name: printable ASCII
// without colon, up to 255 characters. Whatever happens to this process, the
// instance's next one gets them from Stored, in the order in which they were
// stored. A file that is kept already is not kept twice. A connection whose other
// end has gone, and a pipe, is dropped by the supervisor; devices and epoll
// instances are refused, and so is what is more than fd_store_max.
//
// Store returns ErrNoStore if there is nobody to keep them. It does not wait, and
// what is refused is said in the supervisor's log: see Barrier. The files stay the
// caller's. Keys: FDSTORE=1 and FDNAME of sd_notify(3).
func Store(name string, files ...*os.File) error {
	if err := checkStore(name); err != nil {
		return err
	}
	for len(files) > 0 {
		some := files[:min(len(files), mostFiles)]
		files = files[len(some):]
		if err := notify(context.Background(), []string{"FDSTORE=1", "FDNAME=" + name}, some...); err != nil {
			return err
		}
	}
	return nil
}

// Stored returns what this process was given under that name and nobody has taken
// yet: what a process of the instance before it has stored. It returns none if
// there is none, as at the first start. The files are the caller's, in the blocking
// mode in which they were stored; net.FileConn and net.FileListener turn one into
// what package net has of it. A socket of the unit file that has this name counts
// too: give what is stored other names. Who stores listeners or datagram sockets calls
// Stored before it asks for sockets: to those who ask for any name, or were given no
// others, a socket is a socket until it has been taken here.
func Stored(name string) ([]*os.File, error) {
	p := inheritance()
	if errors.Is(p.err, ErrNotActivated) {
		return nil, nil
	}
	if p.err != nil {
		return nil, p.err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var files []*os.File
	for i := range p.all {
		if d := &p.all[i]; !d.taken && d.file.Name() == name {
			d.taken, d.kept = true, true
			files = append(files, d.file)
		}
	}
	return files, nil
}

// Forget has the supervisor part from everything that is stored under that name. It
// returns ErrNoStore if nobody keeps anything. Key: FDSTOREREMOVE=1 of sd_notify(3).
func Forget(name string) error {
	if err := checkStore(name); err != nil {
		return err
	}
	return Notify("FDSTOREREMOVE=1", "FDNAME="+name)
}

// checkStore refuses what a supervisor would. Systemd says FDSTORE only from version
// 254 on; sockd always does.
func checkStore(name string) error {
	bad := func(r rune) bool { return r < ' ' || r > '~' || r == ':' }
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("activation: store: %.40q is no name: printable ASCII without colon, up to 255", name)
	}
	_, sockd := os.LookupEnv("SOCKD_UNIT")
	_, offered := os.LookupEnv("FDSTORE")
	if notifySocket() == "" || sockd && !offered {
		return ErrNoStore
	}
	return nil
}

// rights makes control data of duplicates; done closes them. A file's own
// descriptor is not touched: File.Fd would change its blocking mode.
func rights(files []*os.File) (oob []byte, done func(), err error) {
	var fds []int
	done = func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			done()
			return nil, nil, err
		}
		var fd int
		var dupErr error
		err = raw.Control(func(own uintptr) { fd, dupErr = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
		if err = errors.Join(err, dupErr); err != nil {
			done()
			return nil, nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		fds = append(fds, fd)
	}
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	return oob, done, nil
}
