package units

import (
	"sort"
	"strings"
	"unicode/utf8"
)

// A placer turns byte offsets of a text into lines and columns. A column counts
// characters, not bytes, from 1; a tab is one character, and so is a combining
// mark. A byte order mark at the start of the file is none: the caller cuts it off.
type placer struct {
	text  string
	lines []int // where each line starts

	// The last answer. Asked in file order, a line is then counted once, however
	// many problems stand in it.
	last, line, col int
}

func newPlacer(text string) *placer {
	p := &placer{text: text, lines: []int{0}, line: 1, col: 1}
	for i := 0; ; {
		n := strings.IndexByte(text[i:], '\n')
		if n < 0 {
			return p
		}
		i += n + 1
		p.lines = append(p.lines, i)
	}
}

// place returns the line and column of the character at offset.
func (p *placer) place(offset int) (line, col int) {
	offset = min(max(offset, 0), len(p.text))
	line = sort.SearchInts(p.lines, offset+1)
	if line == p.line && offset >= p.last {
		p.col += utf8.RuneCountInString(p.text[p.last:offset])
	} else {
		p.col = 1 + utf8.RuneCountInString(p.text[p.lines[line-1]:offset])
	}
	p.last, p.line = offset, line
	return line, p.col
}
