package units

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Problem is one thing that is wrong in a unit file, and what to do about it.
type Problem struct {
	File      string
	Line, Col int    // from 1, columns in characters; 0 if the whole file is meant
	Key       string // dotted, quoted where TOML wants it; "" if no key is to blame
	Text      string // what is wrong, no capital, no full stop
	Hint      string // what to write instead, or ""
}

// Error writes the problem as one line: file:line:column: key: text (hint).
func (p Problem) Error() string {
	var b strings.Builder
	if p.File != "" { // one that comes from flags has no place
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.Line, p.Col)
		}
		b.WriteString(": ")
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Text)
	if p.Hint != "" {
		b.WriteString(" (" + p.Hint + ")")
	}
	return b.String()
}

// Problems is every problem of every file, in order of file, line and column.
type Problems []Problem

// Error writes one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// err is the problems in order as an error, or nil if there are none.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	return ps
}

// A fault is a problem that does not know yet where it stands: what is wrong with
// a value and what to write instead.
type fault struct{ text, hint string }

// Error is the text, with the hint where there is one.
func (f *fault) Error() string {
	if f.hint == "" {
		return f.text
	}
	return f.text + " (" + f.hint + ")"
}

// wrong makes a fault without a hint.
func wrong(format string, args ...any) *fault {
	return &fault{text: fmt.Sprintf(format, args...)}
}

// write adds what to write instead, as TOML.
func (f *fault) write(format string, args ...any) *fault {
	f.hint = "write " + fmt.Sprintf(format, args...)
	return f
}

// quote writes s for a message: on one line, and never longer than a line.
func quote(s string) string {
	const most = 60
	if runes := []rune(s[:min(len(s), 4*most)]); len(runes) > most {
		return strconv.Quote(string(runes[:most])) + "…"
	}
	return strconv.Quote(s)
}

// dotted writes a key's path as TOML does: socket."a b".listen.
func dotted(parts ...string) string {
	quoted := make([]string, len(parts))
	for i, p := range parts {
		quoted[i] = tomlKey(p)
	}
	return strings.Join(quoted, ".")
}
