package units

import (
	"fmt"
	"slices"
	"strings"
)

// Kinds with more than one value in them.

// each takes one string or an array of them and reads each with one.
func each(r *reader, n *node, what string, one func(n *node) bool) (count int, ok bool) {
	switch n.shape {
	case array:
		if len(n.kids) == 0 {
			r.fail(n, wrong("the array is empty"))
			return 0, false
		}
		ok = true
		for _, k := range n.kids {
			if k.shape != scalar {
				r.mismatch(k, what, "")
				ok = false
				continue
			}
			ok = one(k) && ok
		}
		return len(n.kids), ok
	case scalar:
		return 1, one(n)
	}
	r.mismatch(n, what+" or an array of them", "")
	return 0, false
}

var stringOrStrings = map[string]any{"anyOf": []any{
	map[string]any{"type": "string", "minLength": 1},
	map[string]any{"type": "array", "minItems": 1, "items": map[string]any{"type": "string"}},
}}

// command is exec: an array, or a string split as a shell would.
var command = &kind{
	what:   "a command",
	schema: stringOrStrings,
	read: func(r *reader, _ *keyInfo, n *node, dst any) {
		var argv []string
		switch s, ok := n.data.(string); {
		case ok:
			var f *fault
			if argv, f = splitCommand(s); f != nil {
				r.fail(n, f)
				return
			}
			if len(argv) == 0 {
				r.fail(n, wrong("the command is empty"))
				return
			}
		case n.shape == array:
			for _, k := range n.kids {
				s, ok := k.data.(string)
				if !ok {
					hint := ""
					if k.shape == scalar {
						hint = "write " + tomlString(k.raw)
					}
					r.mismatch(k, "a string", hint)
					return
				}
				if strings.Contains(s, "\x00") {
					r.fail(k, wrong("a NUL byte"))
					return
				}
				argv = append(argv, s)
			}
			if len(argv) == 0 {
				r.fail(n, wrong("the command is empty"))
				return
			}
		default:
			r.mismatch(n, "a string or an array of strings", "")
			return
		}
		switch {
		case argv[0] == "":
			r.fail(n, wrong("the program's name is empty"))
			return
		case strings.HasPrefix(argv[0], "~"):
			r.fail(n, wrong("~ is not expanded").write("the path in full"))
			return
		case strings.HasSuffix(argv[0], "/"):
			r.fail(n, wrong("%s is a folder, not a program", quote(argv[0])))
			return
		case strings.Contains(argv[0], "/"):
			argv[0] = resolve(r.dir, argv[0])
		}
		store(dst, argv)
	},
	write: func(src any) string {
		argv := load[[]string](src)
		if words, f := splitCommand(argv[0]); len(argv) == 1 && f == nil && len(words) == 1 && words[0] == argv[0] {
			return tomlString(argv[0])
		}
		return tomlStrings(argv)
	},
}

// files is one path or an array of them; a leading "-" says that it may be missing.
var files = &kind{
	what:   "a path or an array of paths",
	schema: stringOrStrings,
	read: func(r *reader, _ *keyInfo, n *node, dst any) {
		var all []string
		_, ok := each(r, n, "a path", func(n *node) bool {
			s, ok := readPath(r, n)
			if !ok {
				return false
			}
			rest, maybe := strings.CutPrefix(s, "-")
			if rest == "" {
				r.fail(n, wrong("the path after - is missing"))
				return false
			}
			if rest = resolve(r.dir, rest); maybe {
				rest = "-" + rest
			}
			all = append(all, rest)
			return true
		})
		if ok {
			store(dst, all)
		}
	},
	write: func(src any) string { return tomlStrings(load[[]string](src)) },
}

// environment is a table of strings.
var environment = &kind{
	what: "a table of strings",
	schema: map[string]any{"type": "object", "propertyNames": map[string]any{"pattern": variable},
		"additionalProperties": map[string]any{"type": "string"}},
	read: func(r *reader, _ *keyInfo, n *node, dst any) {
		if n.shape != table {
			hint := ""
			if n.shape == array {
				hint = `write { NAME = "value" }`
			}
			r.mismatch(n, "a table of strings", hint)
			return
		}
		var env []string
		for _, k := range n.kids {
			at := &reader{r.d, r.dir, r.path + "." + tomlKey(k.key)}
			v, ok := k.data.(string)
			switch {
			case !isVariable(k.key):
				at.d.add(k.at, at.path, wrong("%s is not a variable's name", quote(k.key)))
			case Reserved(k.key):
				at.d.add(k.at, at.path, wrong("sockd sets this itself"))
			case !ok:
				hint := ""
				if k.shape == scalar {
					hint = "write " + tomlString(k.raw)
				}
				at.mismatch(k, "a string", hint)
			case strings.Contains(v, "\x00"):
				at.fail(k, wrong("a NUL byte"))
			default:
				env = append(env, k.key+"="+v)
			}
		}
		store(dst, env)
	},
	write: func(src any) string { panic("written as a table of its own") },
}

// addresses is listen.
var addresses = &kind{
	what:   "an address or an array of addresses",
	schema: stringOrStrings,
	read: func(r *reader, _ *keyInfo, n *node, dst any) {
		var all []Address
		_, ok := each(r, n, "an address", func(n *node) bool {
			s, ok := n.data.(string)
			if !ok {
				hint := ""
				if v, number := n.data.(int64); number && v > 0 && v <= 65535 {
					hint = fmt.Sprintf(`write ":%d"`, v)
				}
				r.mismatch(n, "an address", hint)
				return false
			}
			a, f := parseAddress(s, r.dir)
			if f == nil && slices.Contains(all, a) {
				f = &fault{a.String() + " stands here twice", "give the second one a [socket.NAME] of its own"}
			}
			if f != nil {
				r.fail(n, f)
				return false
			}
			all = append(all, a)
			return true
		})
		if ok {
			store(dst, all)
		}
	},
	write: func(src any) string {
		var all []string
		for _, a := range load[[]Address](src) {
			all = append(all, a.String())
		}
		if len(all) == 1 {
			return tomlString(all[0])
		}
		return tomlStrings(all)
	},
}

// optionNames is optional: keys of [socket.NAME] that set an option.
func optionNames(may []string) *kind {
	enum := make([]any, len(may))
	for i, name := range may {
		enum[i] = name
	}
	return &kind{
		what:   "an array of keys",
		schema: map[string]any{"type": "array", "items": map[string]any{"enum": enum}, "uniqueItems": true},
		read: func(r *reader, _ *keyInfo, n *node, dst any) {
			all := []string{}
			if n.shape != array {
				hint := ""
				if s, ok := n.data.(string); ok {
					hint = "write [" + tomlString(s) + "]"
				}
				r.mismatch(n, "an array of keys", hint)
				return
			}
			for _, k := range n.kids {
				switch s, ok := k.data.(string); {
				case !ok:
					r.mismatch(k, "the name of a key", "")
				case !slices.Contains(may, s):
					f := wrong("%s is not an option that can fail", quote(s))
					f.hint = didYouMean(s, may)
					r.fail(k, f)
				case slices.Contains(all, s):
					r.fail(k, wrong("%s stands here twice", quote(s)))
				default:
					all = append(all, s)
				}
			}
			if len(all) > 0 {
				store(dst, all)
			}
		},
		write: func(src any) string { return tomlStrings(load[[]string](src)) },
	}
}
