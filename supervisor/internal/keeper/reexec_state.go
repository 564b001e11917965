package keeper

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// StateVersion is raised when what one image of the keeper leaves to the next
// changes its meaning. A field more is no change: who does not know it passes it by.
const StateVersion = 1

// WireVersion is the version of the messages between keeper and supervisor.
const WireVersion = wireVersion

// A handover is all that a keeper knows, as plain data: what it leaves to the image
// that takes its place. Descriptors and children stay as they are, so numbers do.
type handover struct {
	Version  int
	Pid      int               // whose this is: children are those of no other process
	Held     map[string]int    // descriptors by name
	States   map[string][]byte // saved by supervisors
	Children []Child
	Runs     []savedRun // of the children, those with a process
	Cgroup   *sys.SavedCgroup
	Guard    savedGuard

	Record  []*Survivor // of the runs that the record lists
	LastGen map[string]uint64
}

// A savedRun is a run that is running.
type savedRun struct {
	ID      ID
	Main    savedProcess
	Formers []savedProcess `json:",omitempty"`
	Mark    string
	Leaf    *sys.SavedLeaf `json:",omitempty"`
	Killed  []int          `json:",omitempty"`
	Foreign bool           `json:",omitempty"`
}

// A savedProcess is a process and the descriptor of its pidfd, -1 if there is none.
type savedProcess struct{ Pid, Handle int }

// A savedGuard is what a guard knows of its supervisor and of itself.
type savedGuard struct {
	Supervisor savedProcess
	Wire       int // our end of the socketpair
	Hello      bool
	Waiting    []int
	Ending     bool
	Outcome    Outcome
	File       int // the program that takes over
	Before     int // the program that hands over, to go back to
	Argv       []string
}

// descriptors are all that must stay open.
func (h *handover) descriptors() []int {
	fds := []int{h.Guard.Wire, h.Guard.File, h.Guard.Before}
	for _, fd := range h.Held {
		fds = append(fds, fd)
	}
	add := func(p savedProcess) {
		if p.Handle >= 0 {
			fds = append(fds, p.Handle)
		}
	}
	add(h.Guard.Supervisor)
	for _, r := range h.Runs {
		add(r.Main)
		each(r.Formers, add)
	}
	return fds
}

// check says what is wrong with a handover, before anything is done about it.
func (h *handover) check() error {
	if h.Version != StateVersion {
		return fmt.Errorf("its version is %d, not %d", h.Version, StateVersion)
	}
	if h.Pid != os.Getpid() {
		return fmt.Errorf("it is of process %d", h.Pid)
	}
	listed := map[ID]bool{}
	for _, c := range h.Children {
		listed[c.ID] = true
	}
	for _, r := range h.Runs {
		if !listed[r.ID] || r.Main.Pid <= 1 {
			return fmt.Errorf("%s has a process and is not listed", r.ID)
		}
	}
	seen := map[int]bool{}
	for _, fd := range h.descriptors() {
		if fd < 3 || seen[fd] {
			return fmt.Errorf("descriptor %d stands there twice, or is a standard one", fd)
		}
		seen[fd] = true
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return fmt.Errorf("descriptor %d: %w", fd, err)
		}
	}
	return nil
}

// handoverMagic begins the file; length and checksum of what follows come next.
const handoverMagic = "sockd handover\n"

// maxHandover bounds what is read of one, in bytes.
const maxHandover = 1 << 30

// seals say that nobody has changed the file since.
const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// write puts h into a sealed memfd.
func (h *handover) write() (fd int, err error) {
	body, err := json.Marshal(h)
	if err != nil {
		return -1, err
	}
	head := append([]byte(handoverMagic), make([]byte, 12)...)
	binary.LittleEndian.PutUint64(head[len(handoverMagic):], uint64(len(body)))
	binary.LittleEndian.PutUint32(head[len(handoverMagic)+8:], crc32.ChecksumIEEE(body))
	fd, err = unix.MemfdCreate("sockd-handover", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("sockd-handover", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, fmt.Errorf("memfd: %w", err)
	}
	for text := append(head, body...); len(text) > 0 && err == nil; {
		var n int
		n, err = unix.Write(fd, text)
		text = text[max(n, 0):]
		if err == unix.EINTR {
			err = nil
		}
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("memfd: %w", err)
	}
	return fd, nil
}

// readHandover reads what another image of this process has written into fd. With an
// error it returns as much as could be read, if anything: it may be enough to hand back.
func readHandover(fd int) (*handover, error) {
	if have, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err != nil || have&seals != seals {
		return nil, errors.New("it is not sealed")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Size > maxHandover {
		return nil, fmt.Errorf("it has %d bytes", st.Size)
	}
	text, err := io.ReadAll(io.NewSectionReader(reader(fd), 0, st.Size))
	if err != nil {
		return nil, err
	}
	body, ok := bytes.CutPrefix(text, []byte(handoverMagic))
	if !ok || len(body) < 12 {
		return nil, errors.New("it does not begin as one")
	}
	size, sum := binary.LittleEndian.Uint64(body), binary.LittleEndian.Uint32(body[8:])
	if body = body[12:]; uint64(len(body)) != size || crc32.ChecksumIEEE(body) != sum {
		return nil, errors.New("it is damaged")
	}
	h := new(handover)
	if err := json.Unmarshal(body, h); err != nil && h.Version == StateVersion {
		return h, err
	}
	return h, h.check()
}

// reader reads a descriptor that stays the caller's.
type reader int

func (r reader) ReadAt(p []byte, at int64) (int, error) {
	n, err := unix.Pread(int(r), p, at)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), err
}
