package plain

import (
	"encoding/json"
	"reflect"
	"strconv"
	"unicode/utf8"
)

// What follows reads one kind of value each. Where it is false, nothing has been decided,
// and the reader may be anywhere.

func (r *reader) string(to reflect.Value, _ *shape) bool {
	s, ok := r.plainText()
	if ok {
		to.SetString(s)
	}
	return ok
}

// plainText reads a string that stands for itself.
func (r *reader) plainText() (s string, ok bool) {
	if !r.take('"') {
		return "", false
	}
	ascii := true
	for i := r.at; i < len(r.text); i++ {
		switch c := r.text[i]; {
		case c == '"':
			s, r.at = r.text[r.at:i], i+1
			return s, ascii || utf8.ValidString(s)
		case c == '\\' || c < ' ':
			return "", false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return "", false
}

// itself has a type read itself that stands as a string, such as a time.
func (r *reader) itself(to reflect.Value, _ *shape) bool {
	began := r.at
	if _, ok := r.plainText(); !ok {
		return false
	}
	return to.Addr().Interface().(json.Unmarshaler).UnmarshalJSON([]byte(r.text[began:r.at])) == nil
}

func (r *reader) bool(to reflect.Value, _ *shape) bool {
	for _, word := range []string{"true", "false"} {
		if len(r.text)-r.at >= len(word) && r.text[r.at:r.at+len(word)] == word {
			r.at += len(word)
			to.SetBool(word == "true")
			return true
		}
	}
	return false
}

// mostDigits is how many digits surely fit into 64 bits.
const mostDigits = 18

// digits reads a whole number as JSON has it.
func (r *reader) digits() (n int64, ok bool) {
	began := r.at
	for c := r.next(); c >= '0' && c <= '9'; c = r.next() {
		n = n*10 + int64(c-'0')
		r.at++
	}
	length := r.at - began
	return n, length > 0 && length <= mostDigits && (length == 1 || r.text[began] != '0') && r.ends()
}

func (r *reader) int(to reflect.Value, _ *shape) bool {
	negative := r.take('-')
	n, ok := r.digits()
	if negative {
		n = -n
	}
	if !ok || to.OverflowInt(n) {
		return false
	}
	to.SetInt(n)
	return true
}

func (r *reader) uint(to reflect.Value, _ *shape) bool {
	n, ok := r.digits()
	if !ok || to.OverflowUint(uint64(n)) {
		return false
	}
	to.SetUint(uint64(n))
	return true
}

func (r *reader) pointer(to reflect.Value, s *shape) bool {
	to.Set(reflect.New(to.Type().Elem()))
	return r.value(to.Elem(), s.elem)
}

func (r *reader) slice(to reflect.Value, s *shape) bool {
	if !r.take('[') {
		return false
	}
	if r.take(']') {
		to.Set(reflect.MakeSlice(to.Type(), 0, 0))
		return true
	}
	for n := 0; ; n++ {
		if n == to.Cap() {
			to.Grow(1)
		}
		to.SetLen(n + 1)
		if !r.value(to.Index(n), s.elem) {
			return false
		}
		if r.take(']') {
			return true
		}
		if !r.take(',') {
			return false
		}
	}
}

// mapping reads a map by name or by number.
func (r *reader) mapping(to reflect.Value, s *shape) bool {
	if !r.take('{') {
		return false
	}
	t := to.Type()
	to.Set(reflect.MakeMap(t))
	if r.take('}') {
		return true
	}
	for {
		name, ok := r.plainText()
		if !ok || !r.take(':') {
			return false
		}
		key, elem := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		if isUint(t.Key().Kind()) {
			n, err := strconv.ParseUint(name, 10, 64)
			if err != nil || key.OverflowUint(n) {
				return false
			}
			key.SetUint(n)
		} else {
			key.SetString(name)
		}
		if !r.value(elem, s.elem) {
			return false
		}
		to.SetMapIndex(key, elem)
		if r.take('}') {
			return true
		}
		if !r.take(',') {
			return false
		}
	}
}

// object reads a struct whose fields come in their order, as they are written. Others are
// none that we have written.
func (r *reader) object(to reflect.Value, s *shape) bool {
	if !r.take('{') {
		return false
	}
	if r.take('}') {
		return true
	}
	for next := 0; ; next++ {
		name, ok := r.plainText()
		if !ok || !r.take(':') {
			return false
		}
		for next < len(s.fields) && s.fields[next].name != name {
			next++
		}
		if next == len(s.fields) {
			return false
		}
		if f := &s.fields[next]; !r.value(to.Field(f.index), f.shape) {
			return false
		}
		if r.take('}') {
			return true
		}
		if !r.take(',') {
			return false
		}
	}
}
