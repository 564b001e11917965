package units

import (
	"strings"

	"github.com/BurntSushi/toml"
)

// A part is one name of a dotted key.
type part struct {
	key string
	at  int
}

// parts reads a dotted key.
func (s *scanner) parts(depth int) []part {
	var parts []part
	for {
		s.blank(false)
		p := part{at: s.pos}
		if !s.count(depth + len(parts) + 1) {
			return parts
		}
		switch c := s.peek(); c {
		case '"', '\'':
			if s.quoted(); s.fault == nil {
				p.key = s.unquoteKey(s.text[p.at:s.pos])
			}
		default:
			end := strings.IndexAny(s.text[s.pos:], " \t\r\n.=]#[{}\"',")
			if end < 0 {
				end = len(s.text) - s.pos
			}
			if end == 0 {
				s.stop("a key is missing")
			}
			p.key = s.text[s.pos : s.pos+end]
			s.pos += end
		}
		parts = append(parts, p)
		s.blank(false)
		if s.fault != nil || s.peek() != '.' {
			return parts
		}
		s.pos++
	}
}

// unquoteKey asks the library what a quoted key says: there is then no second
// opinion about escapes.
func (s *scanner) unquoteKey(raw string) string {
	if !strings.Contains(raw, `\`) || raw[0] == '\'' {
		return strings.Trim(raw, raw[:1])
	}
	var doc map[string]any
	if _, err := toml.Decode(raw+"=0", &doc); err != nil {
		s.stop("the quoted key cannot be read")
	}
	for key := range doc { // just one
		return key
	}
	return ""
}

func (s *scanner) take(c byte) {
	if s.fault != nil {
		return
	}
	if s.blank(false); s.peek() != c {
		s.stop("expected " + string(rune(c)))
		return
	}
	s.pos++
}

// quoted skips a string of any of the four kinds.
func (s *scanner) quoted() {
	q, start := s.text[s.pos:s.pos+1], s.pos
	defer func() {
		if s.open {
			s.pos = start
		}
	}()
	if strings.HasPrefix(s.text[s.pos:], q+q+q) {
		s.pos += 3
		s.until(q, q+q+q)
		for n := 0; n < 2 && s.fault == nil && s.peek() == q[0]; n++ {
			s.pos++ // up to two quotes may stand before the closing three
		}
		return
	}
	s.pos++
	s.until(q, q)
}

// until skips to behind end. Backslashes mean something in basic strings only.
func (s *scanner) until(q, end string) {
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; {
		case strings.HasPrefix(s.text[s.pos:], end):
			s.pos += len(end)
			return
		case c == '\\' && q == `"` && s.pos+1 < len(s.text):
			s.pos += 2
		case c == '\n' && len(end) == 1:
			s.open = true
			s.stop("the string does not end on its line")
			return
		default:
			s.pos++
		}
	}
	s.open = true
	s.stop("the string does not end")
}

// read reads the value at n.value into n.
func (s *scanner) read(n *node, depth int) {
	switch s.peek() {
	case '[':
		n.shape = array
		s.list(']', func() {
			if s.count(depth + 1) {
				s.read(n.add(&node{at: s.pos, value: s.pos}), depth+1)
			}
		})
	case '{':
		n.shape, n.defined = table, true
		s.list('}', func() { s.pair(n, depth) })
	case '"', '\'':
		s.quoted()
	default:
		end := strings.IndexAny(s.text[s.pos:], ",]}#\r\n\"'[{=")
		if end < 0 {
			end = len(s.text) - s.pos
		}
		word := strings.TrimRight(s.text[s.pos:s.pos+end], " \t")
		if word == "" {
			s.stop("a value is missing")
		}
		s.pos += len(word)
	}
	n.raw = s.text[n.value:s.pos]
}

// list reads elements between the brackets of an array or an inline table.
func (s *scanner) list(end byte, element func()) {
	s.pos++
	for {
		if s.blank(true); s.peek() == end {
			break
		}
		if element(); s.fault != nil {
			return
		}
		if s.blank(true); s.peek() != ',' {
			break
		}
		s.pos++
	}
	s.take(end)
}

// fill gives every scalar under n its value, and says whether the library's tree
// and ours are the same.
func (n *node) fill(data any) bool {
	switch n.shape {
	case table:
		m, ok := data.(map[string]any)
		if !ok || len(m) != len(n.kids) {
			return false
		}
		for _, k := range n.kids {
			if v, there := m[k.key]; !there || !k.fill(v) {
				return false
			}
		}
		return true
	case tables:
		maps, ok := data.([]map[string]any)
		if !ok || len(maps) != len(n.kids) {
			return false
		}
		for i, k := range n.kids {
			if !k.fill(maps[i]) {
				return false
			}
		}
		return true
	case array:
		list, ok := data.([]any)
		if !ok || len(list) != len(n.kids) {
			return false
		}
		for i, k := range n.kids {
			if !k.fill(list[i]) {
				return false
			}
		}
		return true
	}
	n.data = data
	return data != nil
}
