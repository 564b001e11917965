package units

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// tomlKey writes a key bare where TOML allows it, else quoted.
func tomlKey(s string) string {
	if s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == "" {
		return s
	}
	return tomlString(s)
}

// Quote writes s as a TOML basic string, with its quotes: for programs that write
// unit files.
func Quote(s string) string { return tomlString(s) }

// tomlString writes a basic string.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func tomlStrings(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = tomlString(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// TOML writes the unit as a file that Parse reads back, with only those keys that
// are not at their default. It is an error if a value cannot be written: TOML is
// UTF-8 text. The result is not checked; Parse does that.
func (u *Unit) TOML() ([]byte, error) {
	var b bytes.Buffer
	if u.Service != nil {
		b.WriteString("[service]\n")
		u.writeService(&b)
	}
	for i := range u.Sockets {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "[%s]\n", dotted("socket", u.Sockets[i].Name))
		writeTable(&b, socketKeys(), &u.Sockets[i], newSocket(""))
	}
	if !utf8.Valid(b.Bytes()) || bytes.ContainsRune(b.Bytes(), utf8.RuneError) {
		return nil, errors.New("unit " + u.Name + ": a value is not UTF-8 text, which a unit file must be")
	}
	return b.Bytes(), nil
}

func (u *Unit) writeService(b *bytes.Buffer) {
	base := &draft{Service: *newService()}
	if u.File != "" {
		base.Directory = u.Dir // else nobody knows which folder the file will be in
	}
	base.Start = Boot
	if len(u.Sockets) > 0 {
		base.Start = Demand
	}
	sv := *u.Service
	env := sv.Environment
	sv.Environment = nil
	writeTable(b, serviceKeys(), &draft{Service: sv}, base)
	if len(env) == 0 {
		return
	}
	b.WriteString("\n[service.environment]\n")
	last := map[string]int{} // a name stands once in a table: the last one wins
	for i, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		last[name] = i
	}
	for i, kv := range env {
		if name, value, _ := strings.Cut(kv, "="); last[name] == i {
			fmt.Fprintf(b, "%s = %s\n", tomlKey(name), tomlString(value))
		}
	}
}

// writeTable writes the keys of *v that are different in *base.
func writeTable[T any](b *bytes.Buffer, keys []key[T], v, base *T) {
	for _, k := range keys {
		value := k.field(v)
		if !reflect.DeepEqual(value, k.field(base)) {
			fmt.Fprintf(b, "%s = %s\n", k.name, k.kind.write(value))
		}
	}
}
