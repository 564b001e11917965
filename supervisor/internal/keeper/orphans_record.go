package keeper

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// A Record is what a killed keeper has left of its runs.
type Record struct {
	Keeper  int // its pid
	LastGen map[string]uint64
	Runs    []Survivor // by ID; not known to have ended

	whole int64 // how much of the file counts, in bytes
}

// maxRecord bounds what is read of a record, in bytes.
const maxRecord = 256 << 20

// ReadRecord reads the record in the folder dir. One of another boot, or none, is an
// empty one: no process of it can live. What stands at its end and is not whole has
// not happened.
func ReadRecord(dir string) (*Record, error) {
	name := filepath.Join(dir, RecordName)
	r := &Record{LastGen: map[string]uint64{}}
	st, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil && (!st.Mode().IsRegular() || st.Size() > maxRecord) {
		err = errors.New("it is no file, or too large")
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, fmt.Errorf("record of runs: %w", err)
	}
	live, size := map[ID]*Survivor{}, len(text)
	for n := 0; ; n++ {
		one, rest, whole := bytes.Cut(text, []byte("\n"))
		if !whole {
			r.whole = int64(size - len(text))
			break
		}
		text = rest
		var l line
		if err := json.Unmarshal(one, &l); err != nil {
			return nil, fmt.Errorf("record of runs: line %d: %w", n+1, err)
		}
		if n == 0 {
			if l.Head == nil || l.Head.Version != recordVersion {
				return nil, fmt.Errorf("record of runs: it is none of version %d", recordVersion)
			}
			if l.Head.Boot != sys.Boot() {
				return r, nil
			}
			r.Keeper = l.Head.Keeper
			for unit, gen := range l.Head.LastGen {
				r.LastGen[unit] = gen
			}
		}
		switch {
		case l.Run != nil:
			live[l.Run.ID] = l.Run
			r.LastGen[l.Run.ID.Unit] = max(r.LastGen[l.Run.ID.Unit], l.Run.ID.Gen)
		case l.Born != nil && l.As != nil && live[*l.Born] != nil:
			live[*l.Born].Process = *l.As
		case l.End != nil:
			delete(live, *l.End)
		}
	}
	for _, s := range live {
		r.Runs = append(r.Runs, *s)
	}
	slices.SortFunc(r.Runs, func(a, b Survivor) int { return compareIDs(a.ID, b.ID) })
	return r, nil
}

// End notes in the record that nothing is left of a run: whoever reads it next, since
// the start that has read it fails, does not find that one again.
func (r *Record) End(dir string, id ID) error {
	f, err := os.OpenFile(filepath.Join(dir, RecordName), os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := json.Marshal(line{End: &id})
	if err != nil {
		return err
	}
	text = append(text, '\n')
	n, err := f.WriteAt(text, r.whole) // over what is not whole
	if err == nil {
		err = f.Truncate(r.whole + int64(n))
	}
	if err == nil {
		r.whole += int64(n)
	}
	return err
}

func compareIDs(a, b ID) int {
	return cmp.Or(cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.Gen, b.Gen))
}

// Find opens the survivor's main process; nil if it has ended. One that was killed
// with its keeper before its birth was written down is looked for by its mark.
func (s *Survivor) Find() *sys.Process {
	if s.Process.Pid > 0 {
		return s.Process.Find()
	}
	return sys.FindMarked(s.Mark)
}
