package units

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// A document is one unit file on its way to becoming a Unit: its text, its tree
// and what is wrong with it so far.
type document struct {
	file     string
	placer   *placer
	problems Problems
}

// parse reads the text into a tree within the limits. It returns nil if the tree
// cannot be used; why stands in the problems.
func (d *document) parse(text []byte) *node {
	if len(text) > maxFile {
		d.whole(tooLarge())
		return nil
	}
	source := strings.TrimPrefix(string(text), "\uFEFF")
	d.placer = newPlacer(source)
	if !d.clean(source) {
		return nil
	}
	root, s := scan(source)
	switch {
	case s.limit:
		d.add(s.pos, "", s.fault)
		return nil
	case s.fault != nil:
		d.syntax(source, s)
		return nil
	}
	data, err := decode(source)
	switch {
	case err != nil:
		d.add(d.libraryPlace(source, err), "", librarySays(err))
		return nil
	case !root.fill(data):
		d.add(0, "", wrong("this file cannot be read: its tables are put together in an unusual way"))
		return nil
	}
	return root
}

func tooLarge() *fault { return wrong("larger than %d MiB", maxFile>>20) }

// add notes a problem at an offset.
func (d *document) add(offset int, key string, f *fault) {
	line, col := d.placer.place(offset)
	d.problems = append(d.problems, Problem{d.file, line, col, key, f.text, f.hint})
}

// whole notes a problem of the whole file.
func (d *document) whole(f *fault) {
	d.problems = append(d.problems, Problem{File: d.file, Text: f.text, Hint: f.hint})
}

// clean refuses what no TOML file contains.
func (d *document) clean(text string) bool {
	for i, r := range text {
		switch {
		case r == 0:
			d.add(i, "", &fault{"a NUL byte", "a unit file is UTF-8 text"})
			return false
		case r == '\r' && !strings.HasPrefix(text[i:], "\r\n"), r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			d.add(i, "", wrong("the control character 0x%02x", r))
			return false
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], "\uFFFD"):
			d.add(i, "", wrong("the byte 0x%02x is not UTF-8", text[i]))
			return false
		}
	}
	return true
}

// syntax reports where and why the scanner stopped: in the library's words where
// it has any, for it knows the language better.
func (d *document) syntax(text string, s *scanner) {
	switch {
	case s.open:
		d.add(s.pos, "", s.fault)
		return
	case s.dup:
		line, col := d.placer.place(s.other)
		d.add(s.pos, s.key, &fault{s.fault.text, fmt.Sprintf("the first is at %d:%d", line, col)})
		return
	}
	// The library sees no more than the scanner has found to be within the limits,
	// and the rest of a line.
	const rest = 200
	end := min(s.pos+rest, len(text))
	if n := strings.IndexByte(text[s.pos:end], '\n'); n >= 0 {
		end = s.pos + n + 1
	}
	for end < len(text) && !utf8.RuneStart(text[end]) {
		end++
	}
	if _, err := decode(text[:end]); err != nil {
		d.add(d.libraryPlace(text, err), "", librarySays(err))
		return
	}
	d.add(s.pos, "", s.fault)
}

// decode asks the library. It panics on a few invalid texts; that is an error too.
func decode(text string) (data map[string]any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("invalid TOML: %v", r)
		}
	}()
	_, err = toml.Decode(text, &data)
	return data, err
}

// libraryPlace is the offset the library's error stands at.
func (d *document) libraryPlace(text string, err error) int {
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		return 0
	}
	at := min(pe.Position.Start, len(text))
	for at < len(text) && (text[at] == ' ' || text[at] == '\t') {
		at++ // it sometimes names the blank before the culprit
	}
	return at
}

// librarySays is the library's message in our style: no capital, no full stop.
func librarySays(err error) *fault {
	text := err.Error()
	var pe toml.ParseError
	if errors.As(err, &pe) {
		text = pe.Message
	}
	text = strings.TrimSuffix(text, ".")
	if len(text) > 1 && text[0] >= 'A' && text[0] <= 'Z' && text[1] >= 'a' && text[1] <= 'z' {
		text = strings.ToLower(text[:1]) + text[1:]
	}
	if i := strings.IndexAny(text, "\n\r"); i >= 0 {
		text = text[:i]
	}
	return wrong("%s", text)
}
