package supervisor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
	"unicode/utf8"
)

// Format is how the lines of services are written.
type Format string

const (
	// Text puts the instance before each line: "web@1 | listening".
	Text Format = "text"
	// JSON writes an object for each line, with the keys time, unit, instance,
	// gen, line, and partial where a line was longer than MaxLine.
	JSON Format = "json"
)

// MaxLine is the longest line, in bytes, that is written in one piece. A longer
// one is written in several; no byte is left out.
const MaxLine = 64 << 10

// A lineWriter writes whole lines of many runs to one output, in one call each, so
// that they never mix.
type lineWriter struct {
	mu     sync.Mutex
	out    io.Writer
	format Format
	colour bool
	width  int
	now    func() time.Time
	buf    []byte
}

// A source names the run that a line comes from.
type source struct {
	unit     string
	instance int
	gen      uint64
}

type jsonLine struct {
	Time     string `json:"time"`
	Unit     string `json:"unit"`
	Instance int    `json:"instance"`
	Gen      uint64 `json:"generation"`
	Line     string `json:"line"`
	Partial  bool   `json:"partial,omitempty"`
}

// write writes one line, given without its newline. A partial one goes on in the next.
func (w *lineWriter) write(src source, line []byte, partial bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.format == JSON {
		text := string(line)
		if !utf8.Valid(line) {
			text = string(bytes.ToValidUTF8(line, []byte("\uFFFD")))
		}
		b, _ := json.Marshal(jsonLine{w.now().UTC().Format(time.RFC3339Nano), src.unit, src.instance, src.gen, text, partial})
		w.out.Write(append(b, '\n'))
		return
	}
	name := fmt.Sprintf("%s@%d", src.unit, src.instance)
	w.width = min(max(w.width, len(name)), 24)
	w.buf = w.buf[:0]
	if w.colour {
		w.buf = fmt.Appendf(w.buf, "\x1b[%dm%-*s |\x1b[0m ", colourOf(src), w.width, name)
	} else {
		w.buf = fmt.Appendf(w.buf, "%-*s | ", w.width, name)
	}
	w.buf = append(append(w.buf, line...), '\n')
	w.out.Write(w.buf)
}

// colourOf picks one of six terminal colours, the same for an instance each time.
func colourOf(src source) int {
	sum := src.instance
	for _, c := range []byte(src.unit) {
		sum = sum*31 + int(c)
	}
	return 31 + (sum&0x7fffffff)%6
}

// A splitter cuts what a run writes into lines and keeps the unfinished rest.
type splitter struct {
	src  source
	rest []byte
}

func (s *splitter) feed(w *lineWriter, data []byte) {
	for len(data) > 0 {
		i := bytes.IndexByte(data, '\n')
		end := i
		if i < 0 {
			end = len(data)
		}
		if room := MaxLine - len(s.rest); end > room {
			piece := append(s.rest, data[:room]...)
			cut := wholeRunes(piece)
			w.write(s.src, piece[:cut], true)
			s.rest, data = append([]byte(nil), piece[cut:]...), data[room:]
			continue
		}
		if i < 0 {
			s.rest = append(s.rest, data...)
			return
		}
		if len(s.rest) > 0 {
			w.write(s.src, append(s.rest, data[:i]...), false)
			s.rest = nil
		} else {
			w.write(s.src, data[:i], false)
		}
		data = data[i+1:]
	}
}

// wholeRunes is the length of b without the beginning of a character whose end is
// still to come.
func wholeRunes(b []byte) int {
	for n := 1; n < utf8.UTFMax && n < len(b); n++ {
		if c := b[len(b)-n]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(b[len(b)-n:]) {
				return len(b) - n
			}
			break
		}
	}
	return len(b)
}

// finish writes an unfinished last line.
func (s *splitter) finish(w *lineWriter) {
	if len(s.rest) > 0 {
		w.write(s.src, s.rest, false)
		s.rest = nil
	}
}
