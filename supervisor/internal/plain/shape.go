package plain

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"sync"
)

// A shape is how a type is read. Without read it is left to encoding/json.
type shape struct {
	read   func(r *reader, to reflect.Value, s *shape) bool
	own    bool    // it reads itself
	parts  bool    // it has some
	elem   *shape  // of a slice, a map or a pointer
	fields []field // of a struct, as they are written
}

type field struct {
	name  string
	index int
	shape *shape
}

var (
	shapes  sync.Map // by reflect.Type
	ownJSON = reflect.TypeFor[json.Unmarshaler]()
	ownText = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// shapeOf is made once for each type.
func shapeOf(t reflect.Type) *shape {
	if s, ok := shapes.Load(t); ok {
		return s.(*shape)
	}
	s, _ := shapes.LoadOrStore(t, makeShape(t, map[reflect.Type]*shape{}))
	return s.(*shape)
}

// makeShape makes it; those under way end a type that is in itself.
func makeShape(t reflect.Type, under map[reflect.Type]*shape) *shape {
	if s := under[t]; s != nil {
		return s
	}
	s := &shape{}
	under[t] = s
	if reflect.PointerTo(t).Implements(ownJSON) {
		s.read, s.own = (*reader).itself, true
		return s
	}
	if reflect.PointerTo(t).Implements(ownText) {
		return s
	}
	switch t.Kind() {
	case reflect.String:
		s.read = (*reader).string
	case reflect.Bool:
		s.read = (*reader).bool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		s.read = (*reader).int
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		s.read = (*reader).uint
	case reflect.Pointer:
		s.elem, s.read, s.parts = makeShape(t.Elem(), under), (*reader).pointer, true
	case reflect.Slice:
		if t.Elem().Kind() != reflect.Uint8 { // that is base64
			s.elem, s.read, s.parts = makeShape(t.Elem(), under), (*reader).slice, true
		}
	case reflect.Map:
		if k := t.Key(); (k.Kind() == reflect.String || isUint(k.Kind())) && !reflect.PointerTo(k).Implements(ownText) {
			s.elem, s.read, s.parts = makeShape(t.Elem(), under), (*reader).mapping, true
		}
	case reflect.Struct:
		if fields, ok := fieldsOf(t, under); ok {
			s.fields, s.read, s.parts = fields, (*reader).object, true
		}
	}
	return s
}

// fieldsOf are those of a struct, if there is nothing special about any.
func fieldsOf(t reflect.Type, under map[reflect.Type]*shape) (all []field, ok bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			return nil, false
		}
		if !f.IsExported() {
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" || options != "" && options != "omitzero" && options != "omitempty" {
			return nil, false
		}
		all = append(all, field{f.Name, i, makeShape(f.Type, under)})
	}
	return all, true
}

func isUint(k reflect.Kind) bool { return k >= reflect.Uint && k <= reflect.Uint64 }
