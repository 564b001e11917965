// Package plain reads JSON that encoding/json has written of plain data: structs,
// slices, strings, numbers and truth values. It does so two to four times as fast, which
// matters where a supervisor begins and a thousand units are to be read: nobody
// supervises meanwhile.
//
// It knows no JSON that encoding/json does not, and judges nothing: whatever it is not
// sure of (an escape, a name out of order, a type with methods of its own) is left to
// encoding/json. The one thing to know: strings that are read share the memory of the
// whole text.
package plain

import (
	"encoding/json"
	"reflect"
	"strings"
)

// Unmarshal is json.Unmarshal into what v points to, which is zero.
func Unmarshal(data []byte, v any) error {
	if Read(data, v) {
		return nil
	}
	reflect.ValueOf(v).Elem().SetZero()
	return json.Unmarshal(data, v)
}

// Read does what json.Unmarshal does, or says that it is not sure of it. Then what v
// points to, which was zero, holds anything.
func Read(data []byte, v any) bool {
	to := reflect.ValueOf(v).Elem()
	r := reader{text: string(data)}
	return r.value(to, shapeOf(to.Type())) && r.at == len(r.text)
}

// A reader is at a byte of the text.
type reader struct {
	text string
	at   int
}

// next is the byte it is at; 0 at the end.
func (r *reader) next() byte {
	if r.at < len(r.text) {
		return r.text[r.at]
	}
	return 0
}

// take goes past a byte, if that is what comes.
func (r *reader) take(c byte) bool {
	if r.next() != c {
		return false
	}
	r.at++
	return true
}

// value reads one. What has parts may have been read in part: then only the whole can be
// left to encoding/json.
func (r *reader) value(to reflect.Value, s *shape) bool {
	if s.read == nil {
		return r.other(to)
	}
	if !s.own && strings.HasPrefix(r.text[r.at:], "null") { // it stays zero
		r.at += len("null")
		return r.ends()
	}
	began := r.at
	if s.read(r, to, s) {
		return true
	}
	r.at = began
	return !s.parts && r.other(to)
}

// other leaves a value to encoding/json.
func (r *reader) other(to reflect.Value) bool {
	began := r.at
	return r.skip() && json.Unmarshal([]byte(r.text[began:r.at]), to.Addr().Interface()) == nil
}

// skip goes past a value, whatever it is: to where one ends that is right.
func (r *reader) skip() bool {
	depth := 0
	for r.at < len(r.text) {
		switch c := r.text[r.at]; c {
		case '"':
			if !r.skipText() {
				return false
			}
		case '{', '[':
			depth++
			r.at++
		case '}', ']':
			if depth--; depth < 0 {
				return true // of what it stands in
			}
			r.at++
		case ',':
			if depth == 0 {
				return true
			}
			r.at++
		default:
			r.at++
		}
		if depth == 0 && r.ends() {
			return true
		}
	}
	return depth == 0
}

// ends says whether what comes now can follow a value.
func (r *reader) ends() bool {
	c := r.next()
	return c == ',' || c == '}' || c == ']' || r.at == len(r.text)
}

// skipText goes past a string with whatever is in it.
func (r *reader) skipText() bool {
	for r.at++; r.at < len(r.text); r.at++ {
		switch r.text[r.at] {
		case '\\':
			r.at++
		case '"':
			r.at++
			return true
		}
	}
	return false
}
