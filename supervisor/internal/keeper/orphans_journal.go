package keeper

import (
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// The record is for the day on which the keeper itself is killed: a file that says
// which runs there are, how their processes are known, and which sockets they have.
// It is a journal, to which a start adds two lines and an end one; what does not
// start or end costs nothing.

// RecordHeld is the name under which a supervisor has the runtime folder held. While
// it is, the record is kept in there.
const RecordHeld = "record"

// RecordName is the record's name in that folder.
const RecordName = "runs"

// recordVersion is raised when a line changes its meaning.
const recordVersion = 1

// A line of the record: exactly one of Head, Run, Born and End is there.
type line struct {
	Head *recordHead   `json:",omitempty"` // first
	Run  *Survivor     `json:",omitempty"` // about to be started, or adopted
	Born *ID           `json:",omitempty"`
	As   *sys.Identity `json:",omitempty"` // with Born: the main process
	End  *ID           `json:",omitempty"`
}

type recordHead struct {
	Version int
	Boot    string
	Keeper  int               // its pid
	LastGen map[string]uint64 // by unit: no generation may be used again
}

// A Survivor is a run as the record has it.
type Survivor struct {
	ID      ID
	Process sys.Identity   // of its main process; Pid 0: not known
	Mark    string         `json:",omitempty"` // a variable that its processes were started with
	Leaf    *sys.SavedLeaf `json:",omitempty"`
	Output  uint64         `json:",omitempty"` // inode of the pipe that it writes to
	Sockets []HeldSocket   `json:",omitempty"` // descriptors from 3 on
}

// A HeldSocket is a socket that a run was given.
type HeldSocket struct {
	Name   string // under which it was held
	Cookie uint64
}

// A journal writes the record.
type journal struct {
	log *slog.Logger

	mu      sync.Mutex
	dir     int // -1: no record is kept
	file    int
	size    int64 // of the file, in bytes
	compact int64 // its size when it was last written anew
	live    map[ID]*Survivor
	lastGen map[string]uint64
	said    bool // that it cannot be written
}

func newJournal(log *slog.Logger) *journal {
	return &journal{log: log, dir: -1, file: -1, live: map[ID]*Survivor{}, lastGen: map[string]uint64{}}
}

// open begins to keep the record in the folder dir, which stays the caller's.
func (j *journal) open(dir int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.shut()
	j.dir = dir
	j.rewrite()
}

// close ends it; what has been written stays.
func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.shut()
}

func (j *journal) shut() {
	closeIf(j.file)
	j.dir, j.file = -1, -1
}

// begin notes that a run is about to be started, or adopted.
func (j *journal) begin(s Survivor) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.live[s.ID] = &s
	j.lastGen[s.ID.Unit] = max(j.lastGen[s.ID.Unit], s.ID.Gen)
	j.add(line{Run: &s})
}

// born notes its main process, whenever that is another.
func (j *journal) born(id ID, p sys.Identity) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s := j.live[id]; s != nil {
		s.Process = p
		j.add(line{Born: &id, As: &p})
	}
}

// end notes that nothing is left of it.
func (j *journal) end(id ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.live[id] != nil {
		delete(j.live, id)
		j.add(line{End: &id})
	}
}

// slack is by how much a record may grow beyond what it is worth, in bytes.
const slack = 256 << 10

// add writes one line, in one call: whoever reads it later finds it whole or not.
func (j *journal) add(l line) {
	if j.dir < 0 {
		return
	}
	if j.file < 0 || j.size > 4*j.compact+slack {
		j.rewrite()
		return // with that line in it
	}
	text, err := json.Marshal(l)
	if err == nil {
		text = append(text, '\n')
		var n int
		n, err = unix.Write(j.file, text)
		j.size += int64(max(n, 0))
		if err == nil && n < len(text) {
			err = unix.ENOSPC
		}
	}
	if err != nil { // the next line tries to write all of it
		j.complain(err)
		closeIf(j.file)
		j.file = -1
	}
}

// rewrite writes the whole record anew and puts it in the place of the old one.
func (j *journal) rewrite() {
	closeIf(j.file)
	j.file, j.size = -1, 0
	head := recordHead{Version: recordVersion, Boot: sys.Boot(), Keeper: os.Getpid(), LastGen: j.lastGen}
	text, err := json.Marshal(line{Head: &head})
	for _, id := range slices.SortedFunc(maps.Keys(j.live), compareIDs) {
		if err == nil {
			var more []byte
			more, err = json.Marshal(line{Run: j.live[id]})
			text = append(append(text, '\n'), more...)
		}
	}
	text = append(text, '\n')
	const fresh = RecordName + ".new"
	fd := -1
	if err == nil {
		fd, err = unix.Openat(j.dir, fresh, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	}
	for rest := text; err == nil && len(rest) > 0; {
		var n int
		n, err = unix.Write(fd, rest)
		rest = rest[max(n, 0):]
	}
	if err == nil {
		err = unix.Renameat(j.dir, fresh, j.dir, RecordName)
	}
	if err != nil {
		closeIf(fd)
		j.complain(err)
		return
	}
	j.file, j.size, j.compact, j.said = fd, int64(len(text)), int64(len(text)), false
}

func (j *journal) complain(err error) {
	if !j.said {
		j.said = true
		j.log.Warn("no record of runs: if the keeper is killed, nobody will know of them", slog.Any("err", err))
	}
}
