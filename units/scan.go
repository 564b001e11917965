package units

import (
	"strings"
)

// Limits, kept before anything is decoded.
const (
	maxFile  = 1 << 20 // bytes of a file
	maxUnits = 10_000  // of one Load
	maxDepth = 16      // parts of a dotted key, arrays and inline tables, all added up
	maxNodes = 10_000  // keys, tables and array elements of a file
)

// A shape says what stands at a node.
type shape byte

const (
	scalar shape = iota
	array        // [1, 2]
	table        // by header, by dotted key or inline
	tables       // [[name]], an array of tables
)

// A node is a key or an array element with its place. The toml library decodes
// values but places few of them, so the scanner finds the places and the library
// the values; fill brings the two together.
type node struct {
	key     string // the last part of the key, decoded; "" for an element
	at      int    // offset of that part; of the value for an element
	value   int    // offset of the value; of the name in the header for a table
	raw     string // a scalar as it is written
	shape   shape
	defined bool  // a table that has had its header, or is inline
	dotted  bool  // a table that a dotted key has made
	data    any   // a scalar's value, from the library
	up      *node // the table or array it is in
	kids    []*node
	index   map[string]*node // a table's kids by key
}

// kid returns the child with that key, or nil.
func (n *node) kid(key string) *node { return n.index[key] }

// path is the node's key, dotted.
func (n *node) path() string {
	var parts []string
	for ; n != nil && n.up != nil; n = n.up {
		if n.key != "" || n.up.shape == table {
			parts = append([]string{n.key}, parts...)
		}
	}
	return dotted(parts...)
}

func (n *node) add(k *node) *node {
	k.up = n
	n.kids = append(n.kids, k)
	if n.shape == table {
		if n.index == nil {
			n.index = map[string]*node{}
		}
		n.index[k.key] = k
	}
	return k
}

// A scanner walks a TOML text and makes its nodes. It is lenient: what is valid
// TOML is for the library to say. It stops at what it cannot follow.
type scanner struct {
	text  string
	pos   int
	nodes int
	fault *fault // why it stopped
	limit bool   // it stopped at a limit: the library must not see the text
	open  bool   // it stopped at the start of a string without an end
	dup   bool   // it stopped at a key that is there already …
	other int    // … at this offset
	key   string // its path
}

// scan returns the root of text. If s.fault is set, s.pos says where it stopped.
func scan(text string) (root *node, s *scanner) {
	s = &scanner{text: text}
	root = &node{shape: table}
	cur, depth := root, 0
	for s.blank(true); s.fault == nil && s.pos < len(s.text); s.blank(true) {
		if s.peek() == '[' {
			cur, depth = s.header(root)
		} else {
			s.pair(cur, depth)
		}
		if s.fault != nil {
			break
		}
		if s.blank(false); s.pos < len(s.text) && s.peek() != '\n' {
			s.stop("one line holds one key")
		}
	}
	return root, s
}

func (s *scanner) stop(text string) {
	if s.fault == nil {
		s.fault = wrong("%s", text)
	}
}

func (s *scanner) peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0 // a NUL is refused before
}

// blank skips spaces, tabs and comments, and ends of lines too if lines is true.
func (s *scanner) blank(lines bool) {
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; {
		case c == ' ', c == '\t', c == '\r', c == '\n' && lines:
			s.pos++
		case c == '#':
			end := strings.IndexByte(s.text[s.pos:], '\n')
			if end < 0 {
				end = len(s.text) - s.pos
			}
			s.pos += end
		default:
			return
		}
	}
}

// count allows one more node at a depth.
func (s *scanner) count(depth int) bool {
	s.nodes++
	switch {
	case s.fault != nil:
		return false
	case s.nodes > maxNodes:
		s.limit = true
		s.fault = wrong("more than %d keys and values", maxNodes)
	case depth > maxDepth:
		s.limit = true
		s.fault = wrong("nested deeper than %d", maxDepth)
	}
	return s.fault == nil
}

// header reads [a.b] or [[a.b]] and returns its table.
func (s *scanner) header(root *node) (*node, int) {
	s.pos++
	double := s.peek() == '['
	if double {
		s.pos++
	}
	parts := s.parts(0)
	if s.take(']'); double {
		s.take(']')
	}
	if s.fault != nil {
		return root, 0
	}
	last := len(parts) - 1
	parent := s.walk(root, parts[:last], false)
	if parent == nil {
		return root, 0
	}
	name := parts[last]
	n := parent.kid(name.key)
	switch {
	case n == nil && double:
		n = parent.add(&node{key: name.key, at: name.at, value: name.at, shape: tables})
	case n == nil:
		n = parent.add(&node{key: name.key, at: name.at, value: name.at, shape: table})
	case n.shape == table && !double && !n.defined && !n.dotted:
		n.at, n.value = name.at, name.at // [a.b] came before [a]
	case n.shape == tables && double:
	default:
		s.again(n, name, "set twice")
		return root, 0
	}
	if double {
		n = n.add(&node{at: name.at, value: name.at, shape: table})
	}
	n.defined = true
	return n, len(parts)
}

// pair reads key = value into cur.
func (s *scanner) pair(cur *node, depth int) {
	parts := s.parts(depth)
	s.take('=')
	s.blank(false)
	if s.fault != nil {
		return
	}
	last := len(parts) - 1
	if cur = s.walk(cur, parts[:last], true); cur == nil {
		return
	}
	name := parts[last]
	if old := cur.kid(name.key); old != nil {
		s.again(old, name, "set twice")
		return
	}
	n := cur.add(&node{key: name.key, at: name.at, value: s.pos})
	s.read(n, depth+len(parts))
}

// again stops at name, which is there already as old.
func (s *scanner) again(old *node, name part, text string) {
	s.dup, s.other, s.key = true, old.at, old.path()
	s.pos, s.fault = name.at, wrong("%s", text)
}

// walk goes down from n along parts and makes the tables that are missing. What is
// inline or, for a dotted key, has a header is closed: the library is lax there.
func (s *scanner) walk(n *node, parts []part, dotted bool) *node {
	for _, p := range parts {
		next := n.kid(p.key)
		switch {
		case next == nil:
			next = n.add(&node{key: p.key, at: p.at, value: p.at, shape: table, dotted: dotted})
		case next.shape == tables && !dotted:
			next = next.kids[len(next.kids)-1]
		case next.shape != table:
			s.again(next, p, "is not a table")
			return nil
		case next.raw != "" || next.defined && dotted:
			s.again(next, p, "is a table that has ended")
			return nil
		}
		n = next
	}
	return n
}
