package units

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"syscall"
)

// A kind is a type of value: how it is read, written, and described to people and
// to editors.
type kind struct {
	what   string         // "a duration": what a message wants
	schema map[string]any // JSON Schema of the value

	// read turns the node into *dst and reports what is wrong.
	read func(r *reader, k *keyInfo, n *node, dst any)
	// write is the value of *src as TOML.
	write func(src any) string
}

// A reader is where a value is being read.
type reader struct {
	d    *document
	dir  string // where relative paths start
	path string // the key, dotted, for messages
}

func (r *reader) fail(n *node, f *fault) { r.d.add(n.value, r.path, f) }

// mismatch says that n is not what is wanted; hint may be "".
func (r *reader) mismatch(n *node, what, hint string) {
	r.fail(n, &fault{fmt.Sprintf("want %s, read %s", what, describe(n)), hint})
}

// describe says what stands at n, for messages.
func describe(n *node) string {
	switch n.shape {
	case array:
		return "an array"
	case table:
		return "a table"
	case tables:
		return "an array of tables"
	}
	switch v := n.data.(type) {
	case string:
		return "the string " + quote(v)
	case bool:
		return strconv.FormatBool(v)
	case int64, float64:
		return "the number " + n.raw
	}
	return "the date or time " + n.raw
}

// store puts v into *dst, which may be a pointer itself: unset is then nil.
func store(dst, v any) {
	to := reflect.ValueOf(dst).Elem()
	if to.Kind() == reflect.Pointer {
		to.Set(reflect.New(to.Type().Elem()))
		to = to.Elem()
	}
	to.Set(reflect.ValueOf(v).Convert(to.Type()))
}

// load is *src, behind one pointer more if there is one, as a T.
func load[T any](src any) T {
	from := reflect.ValueOf(src).Elem()
	if from.Kind() == reflect.Pointer {
		from = from.Elem()
	}
	return from.Convert(reflect.TypeFor[T]()).Interface().(T)
}

// text makes a kind that is written as a string. instead says what to write for a
// bare number, or "".
func text[T any](what, pattern string, parse func(string) (T, *fault), format func(T) string, instead func(n *node, v int64) string) *kind {
	return &kind{
		what:   what,
		schema: map[string]any{"type": "string", "pattern": pattern},
		read: func(r *reader, k *keyInfo, n *node, dst any) {
			s, ok := n.data.(string)
			if !ok {
				hint := ""
				if v, number := n.data.(int64); number && v >= 0 && instead != nil {
					if s := instead(n, v); s != "" {
						hint = "write " + s
					}
				}
				r.mismatch(n, what, hint)
				return
			}
			v, f := parse(s)
			if f == nil {
				f = k.check(v, format)
			}
			if f != nil {
				r.fail(n, f)
				return
			}
			store(dst, v)
		},
		write: func(src any) string { return tomlString(format(load[T](src))) },
	}
}

// check holds a value against the key's range and its forbidden values.
func (k *keyInfo) check(v any, format any) *fault {
	rv := reflect.ValueOf(v)
	say := func(n int64) string {
		if rv.Kind() == reflect.Int64 && format != nil {
			return reflect.ValueOf(format).Call([]reflect.Value{reflect.ValueOf(n).Convert(rv.Type())})[0].String()
		}
		return strconv.FormatInt(n, 10)
	}
	if k.max != 0 && rv.CanInt() && (rv.Int() < k.min || rv.Int() > k.max) {
		return wrong("%s is not in %s..%s", say(rv.Int()), say(k.min), say(k.max))
	}
	if k.least != 0 && rv.CanInt() && rv.Int() != 0 && rv.Int() < k.least {
		return &fault{say(rv.Int()) + " is less than " + say(k.least), k.tooLow}
	}
	if s, ok := v.(syscall.Signal); ok && k.refuse != nil {
		return k.refuse(s)
	}
	return nil
}

func same(_ *node, v int64) string { return `"` + strconv.FormatInt(v, 10) + `"` }

var (
	duration = text("a duration", `^([0-9]+(\.[0-9]*)?(ns|us|µs|μs|ms|s|m|h))+$`, parseDuration, formatDuration,
		func(_ *node, v int64) string { return `"` + strconv.FormatInt(v, 10) + `s"` })
	size = text("a size", `^[0-9]+(B|KiB|MiB|GiB)$`, parseSize, formatSize,
		func(_ *node, v int64) string {
			if v == 0 {
				return `one such as "64KiB"`
			}
			return `"` + formatSize(v) + `"`
		})
	mode = text("a mode", `^0?[0-7]{3}$`, parseMode, formatMode, func(n *node, v int64) string {
		if digits, octal := strings.CutPrefix(n.raw, "0o"); octal {
			return fmt.Sprintf(`"%04s"`, digits)
		}
		if s := fmt.Sprintf("%04d", v); len(s) == 4 && !strings.ContainsAny(s, "89") {
			return `"` + s + `"`
		}
		return ""
	})
	signal = text("a signal", `^SIG[A-Z0-9]+(\+[0-9]+)?$`, parseSignal, formatSignal, func(_ *node, v int64) string {
		if v > sigRTMax {
			return ""
		}
		if name := formatSignal(syscall.Signal(v)); name != "" {
			return `"` + name + `"`
		}
		return ""
	})
	owner  = text("a name or number in quotes", `^[A-Za-z0-9_][A-Za-z0-9_.-]*\$?$`, parseOwner, plain, same)
	device = text("a network device", `^[^/\s]{1,15}$`, parseDevice, plain, same)
	path   = &kind{
		what:   "a path",
		schema: map[string]any{"type": "string", "minLength": 1},
		read: func(r *reader, _ *keyInfo, n *node, dst any) {
			if s, ok := readPath(r, n); ok {
				store(dst, resolve(r.dir, s))
			}
		},
		write: func(src any) string { return tomlString(load[string](src)) },
	}
	boolean = &kind{
		what:   "true or false",
		schema: map[string]any{"type": "boolean"},
		read: func(r *reader, _ *keyInfo, n *node, dst any) {
			v, ok := n.data.(bool)
			if !ok {
				hint := ""
				switch s, _ := n.data.(string); strings.ToLower(s) {
				case "true", "yes", "on", "1":
					hint = "write true"
				case "false", "no", "off", "0":
					hint = "write false"
				}
				r.mismatch(n, "true or false", hint)
				return
			}
			store(dst, v)
		},
		write: func(src any) string { return strconv.FormatBool(load[bool](src)) },
	}
	integer = &kind{
		what:   "a whole number",
		schema: map[string]any{"type": "integer"},
		read: func(r *reader, k *keyInfo, n *node, dst any) {
			v, ok := n.data.(int64)
			if !ok {
				hint := ""
				if s, text := n.data.(string); text && isDigits(s) && len(s) < 10 {
					hint = "write " + s + " without quotes"
				}
				r.mismatch(n, "a whole number", hint)
				return
			}
			if f := k.check(v, nil); f != nil {
				r.fail(n, f)
				return
			}
			store(dst, v)
		},
		write: func(src any) string { return strconv.FormatInt(load[int64](src), 10) },
	}
)

func plain(s string) string { return s }

// words makes a kind of a few fixed words.
func words[T ~string](all ...T) *kind {
	list, enum := make([]string, len(all)), make([]any, len(all))
	for i, w := range all {
		list[i], enum[i] = string(w), string(w)
	}
	what := `"` + strings.Join(list, `", "`) + `"`
	return &kind{
		what:   what,
		schema: map[string]any{"enum": enum},
		read: func(r *reader, _ *keyInfo, n *node, dst any) {
			s, ok := n.data.(string)
			if !ok {
				hint := ""
				if n.data == false && strings.HasPrefix(what, `"no"`) {
					hint = `write "no"`
				}
				r.mismatch(n, "one of "+what, hint)
				return
			}
			for _, w := range list {
				if s == w {
					store(dst, s)
					return
				}
			}
			f := wrong("%s is not one of %s", quote(s), what)
			f.hint = didYouMean(s, list)
			r.fail(n, f)
		},
		write: func(src any) string { return tomlString(load[string](src)) },
	}
}

func readPath(r *reader, n *node) (string, bool) {
	s, ok := n.data.(string)
	switch {
	case !ok:
		r.mismatch(n, "a path", "")
	case s == "":
		r.fail(n, wrong("the path is empty"))
	case strings.Contains(s, "\x00"):
		r.fail(n, wrong("a NUL byte"))
	case strings.HasPrefix(s, "~"):
		r.fail(n, wrong("~ is not expanded").write("the path in full, or %s if you mean that name", tomlString("./"+s)))
	default:
		return s, true
	}
	return "", false
}
