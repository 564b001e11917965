package machine

import (
	"reflect"
	"testing"
)

// No field of a unit, wherever it stands, may differ unnoticed; and a clone shares none.
func TestSameLooksAtEveryField(t *testing.T) {
	full := func() *Unit {
		u := New(Spec{Instances: 1})
		u.Weights = []int{1}
		u.Instances[0].Runs = []Run{{Gen: 1}}
		return u
	}
	if !full().Same(full()) {
		t.Fatal("two of the same are not the same")
	}
	fields := 0
	eachField(reflect.ValueOf(full()).Elem(), "Unit", nil, func(name string, path []int) {
		fields++
		u := full()
		before := u.Clone()
		change(t, name, at(reflect.ValueOf(u).Elem(), path))
		if u.Same(before) || before.Same(u) {
			t.Errorf("%s: a difference is not seen", name)
		}
		if !before.Same(full()) {
			t.Errorf("%s: shared with a clone", name)
		}
	})
	if fields < 40 {
		t.Errorf("only %d fields", fields)
	}
}

// eachField visits every value that has no parts, and every slice itself. A slice's
// element is a step of -1.
func eachField(v reflect.Value, name string, path []int, visit func(name string, path []int)) {
	path = path[:len(path):len(path)]
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			eachField(v.Field(i), name+"."+v.Type().Field(i).Name, append(path, i), visit)
		}
	case reflect.Slice:
		visit(name, path)
		eachField(v.Index(0), name+"[0]", append(path, -1), visit)
	default:
		visit(name, path)
	}
}

func at(v reflect.Value, path []int) reflect.Value {
	for _, i := range path {
		if i < 0 {
			v = v.Index(0)
		} else {
			v = v.Field(i)
		}
	}
	return v
}

// change makes a value another.
func change(t *testing.T, name string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
	default:
		t.Fatalf("%s: a %v, and nobody knows how to change it", name, v.Kind())
	}
}
