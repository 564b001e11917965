package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// A record is one line of sockd's own log.
type record struct {
	Msg      string `json:"msg"`
	Unit     string `json:"unit"`
	Instance int    `json:"instance"`
	Gen      uint64 `json:"generation"`
	Pid      int    `json:"pid"`
	Because  string `json:"because"`
	Cause    string `json:"cause"`
	Err      string `json:"err"`
}

// A runID is a process of a unit.
type runID struct {
	unit string
	gen  uint64
}

// A recorder reads what sockd says and what services say through it.
type recorder struct {
	mu       sync.Mutex
	exits    map[runID][]record
	errors   []string // what the supervisors found wrong
	stderr   []string // the last lines, for a failed test
	lines    map[runID]uint64
	twice    int     // lines that came again
	torn     []runID // whose last line is the first half of one
	bad      []string
	finished sync.WaitGroup
}

func newRecorder() *recorder {
	return &recorder{exits: map[runID][]record{}, lines: map[runID]uint64{}}
}

// log reads sockd's own log to its end.
func (r *recorder) log(from io.Reader) {
	sc := bufio.NewScanner(from)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := sc.Text()
		r.mu.Lock()
		if r.stderr = append(r.stderr, line); len(r.stderr) > 4000 {
			r.stderr = append([]string{}, r.stderr[2000:]...)
		}
		var rec record
		switch {
		case !strings.HasPrefix(line, "{"): // what a Go process says when it is aborted
		case json.Unmarshal([]byte(line), &rec) != nil:
			r.bad = append(r.bad, "torn log line: "+line)
		case rec.Msg == "exited" || rec.Msg == "not started":
			id := runID{rec.Unit, rec.Gen}
			r.exits[id] = append(r.exits[id], rec)
		case strings.Contains(line, `"level":"ERROR"`) && rec.Msg != "supervisor killed":
			r.errors = append(r.errors, line)
		}
		r.mu.Unlock()
	}
}

// output reads the lines of services to their end. Each process numbers its own.
func (r *recorder) output(from io.Reader) {
	sc := bufio.NewScanner(from)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var line struct {
			Unit string
			Gen  uint64 `json:"generation"`
			Line string
		}
		var n uint64
		err := json.Unmarshal(sc.Bytes(), &line)
		if err == nil {
			_, err = fmt.Sscanf(line.Line, "line %d", &n)
		}
		r.mu.Lock()
		id := runID{line.Unit, line.Gen}
		switch last := r.lines[id]; {
		case err != nil && line.Line == "lin": // killed between two writes
			r.torn = append(r.torn, id)
		case err != nil:
			r.bad = append(r.bad, "not a line of ours: "+sc.Text())
		case n == last+1:
			r.lines[id] = n
		case n <= last:
			r.twice++
		default:
			r.bad = append(r.bad, fmt.Sprintf("%v: line %d after %d", id, n, last))
			r.lines[id] = n
		}
		r.mu.Unlock()
	}
}

// bornIn reads which processes there were.
func bornIn(dir string) map[runID]int {
	all := map[runID]int{}
	text, _ := os.ReadFile(filepath.Join(dir, "births"))
	for line := range strings.Lines(string(text)) {
		var id runID
		var instance, pid int
		if n, _ := fmt.Sscan(line, &id.unit, &instance, &id.gen, &pid); n == 4 {
			all[id] = pid
		}
	}
	return all
}

// A ledger is what exit records and births say together.
type ledger struct {
	processes  int
	missing    []string // processes without a record
	double     []string // with more than one
	unexpected []string // that ended although nobody had made them end
}

// judge compares records with births. Killed are the processes that the test has
// killed; ordered says whether sockd may have made the unit's processes end.
func (r *recorder) judge(dir string, killed map[int]bool, ordered func(unit, cause string) bool) ledger {
	r.mu.Lock()
	defer r.mu.Unlock()
	born := bornIn(dir)
	l := ledger{processes: len(born)}
	for id, pid := range born {
		if recs := r.exits[id]; len(recs) == 0 {
			l.missing = append(l.missing, fmt.Sprintf("%s gen %d pid %d", id.unit, id.gen, pid))
		} else if recs[0].Pid != pid {
			l.unexpected = append(l.unexpected, fmt.Sprintf("%+v is not of pid %d", recs[0], pid))
		}
	}
	for _, id := range r.torn {
		if !killed[born[id]] {
			r.bad = append(r.bad, fmt.Sprintf("%v ended in the middle of a line, and nobody has killed it", id))
		}
	}
	for id, recs := range r.exits {
		if len(recs) > 1 {
			l.double = append(l.double, fmt.Sprintf("%s gen %d: %+v", id.unit, id.gen, recs))
		}
		if rec := recs[0]; !killed[rec.Pid] && !ordered(rec.Unit, rec.Cause) {
			l.unexpected = append(l.unexpected, fmt.Sprintf("%+v", rec))
		}
	}
	return l
}

// linesMissing compares what was read with what the processes have counted. One that
// was killed may have written a line that it had no time to count.
func (r *recorder) linesMissing(dir string) (total uint64, missing []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range bornIn(dir) {
		text, err := os.ReadFile(linesFile(dir, id.unit, fmt.Sprint(id.gen)))
		if err != nil || len(text) < 8 {
			continue
		}
		wrote, read := binary.LittleEndian.Uint64(text), r.lines[id]
		total += read
		if read != wrote && read != wrote+1 {
			missing = append(missing, fmt.Sprintf("%s gen %d wrote %d lines, %d were read", id.unit, id.gen, wrote, read))
		}
	}
	return total, missing
}
