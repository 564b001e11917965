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
		d.fromLibrary(source, err)
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
	const longest = 300 // a socket's name may have 255
	if runes := []rune(key[:min(len(key), 4*longest)]); len(runes) > longest {
		key = string(runes[:longest]) + "…"
	}
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
		d.fromLibrary(text, err)
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

// fromLibrary reports the library's error at its place, in our style: no capital, no
// full stop.
func (d *document) fromLibrary(text string, err error) {
	message, at := err.Error(), 0
	var pe toml.ParseError
	if errors.As(err, &pe) {
		message, at = pe.Message, min(pe.Position.Start, len(text))
	}
	for at < len(text) && (text[at] == ' ' || text[at] == '\t') {
		at++ // it sometimes names the blank before the culprit
	}
	word := text[at:]
	if i := strings.IndexAny(word, " \t\r\n#,]}="); i >= 0 {
		word = word[:i]
	}
	message, _, _ = strings.Cut(strings.TrimSuffix(message, "."), "\n")
	if len(message) > 1 && message[0] >= 'A' && message[0] <= 'Z' && message[1] >= 'a' && message[1] <= 'z' {
		message = strings.ToLower(message[:1]) + message[1:]
	}
	for _, end := range []string{`, but got '\n' instead`, `, but got '\x00' instead`} { // the library's sign for the end of the file
		if expected, ok := strings.CutSuffix(message, end); ok {
			message = "the line ends too early: " + expected
		}
	}
	if expected, ok := strings.CutPrefix(message, "unexpected EOF; "); ok {
		message = "the line ends too early: " + expected
	}
	f := wrong("%s", message)
	switch {
	case strings.HasPrefix(message, "expected value but found") && word == "", message == "the line ends too early: expected value":
		f.text = "a value is missing"
	case strings.HasPrefix(message, "expected value but found"):
		// It may have lost the first letter, looking for inf.
		f = wrong("%s is not a value", quote(word)).write("text in quotes")
	case strings.HasSuffix(message, "cannot have leading zeroes"):
		f.write("a mode in quotes: %s", tomlString(word))
	}
	d.add(at, "", f)
}
