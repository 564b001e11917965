package units

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
)

// Reference is the table of every key in Markdown: systemd's name, default, meaning.
func Reference() []byte {
	var b bytes.Buffer
	b.WriteString("### `[service]`\n\n")
	referenceTable(&b, serviceKeys(), &draft{Service: *newService()})
	b.WriteString("\n### `ready`\n\nWhere it is a table, with exactly one of the first three keys:\n\n")
	referenceTable(&b, gateKeys(), newGate())
	b.WriteString("\n### `[socket.NAME]`\n\n")
	referenceTable(&b, socketKeys(), newSocket(""))
	return b.Bytes()
}

func referenceTable[T any](b *bytes.Buffer, keys []key[T], base *T) {
	b.WriteString("| key | value | default | systemd | meaning |\n|---|---|---|---|---|\n")
	for _, k := range keys {
		fallback := k.fallback
		if value, ok := k.standard(k.field(base)); ok {
			fallback = "`" + value + "`"
		}
		meaning := k.meaning
		if k.needs != toAll {
			meaning += ". For " + string(k.needs) + " addresses"
		}
		systemd := ""
		if k.systemd != "" {
			systemd = "`" + strings.ReplaceAll(k.systemd, " ", "` `") + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", k.name, k.value(), fallback, systemd, strings.ReplaceAll(meaning, "|", `\|`))
	}
}

// value describes what may be written.
func (k *keyInfo) value() string {
	what := k.kind.what
	if enum, ok := k.kind.schema["enum"].([]any); ok {
		var list []string
		for _, w := range enum {
			list = append(list, fmt.Sprintf("`%#v`", w))
		}
		what = strings.Join(list, " ")
	}
	if k.max != 0 && k.kind == integer {
		what += fmt.Sprintf(", %d to %d", k.min, k.max)
	}
	return what
}

// standard is the default as TOML, if it is a value.
func (k *keyInfo) standard(field any) (string, bool) {
	if k.fallback != "" {
		return "", false
	}
	if v := reflect.ValueOf(field).Elem(); v.Kind() == reflect.Slice || v.Kind() == reflect.Pointer {
		return "", false
	}
	return k.kind.write(field), true
}

// Schema is the JSON Schema (2020-12) of a unit file, for editors. What it takes
// may still be refused: rules across keys are not in it.
func Schema() []byte {
	own := map[string]any{"^x-": true}
	socket := map[string]any{"$ref": "#/$defs/socket"}
	schema := map[string]any{
		"$schema":              "https://json-schema.org/draft/2020-12/schema",
		"title":                "sockd unit",
		"description":          "One service and the sockets it is given.",
		"type":                 "object",
		"additionalProperties": false,
		"patternProperties":    own,
		"anyOf":                []any{map[string]any{"required": []any{"service"}}, map[string]any{"required": []any{"socket"}}},
		"properties": map[string]any{
			"service": tableSchema(serviceKeys(), &draft{Service: *newService()}, "exec"),
			"socket": map[string]any{
				"type": "object", "description": "The sockets by name.", "minProperties": 1,
				"propertyNames": map[string]any{"pattern": "^[ -9;-~]{1,255}$"},
				// A table is a socket, whatever its name; anything else may be yours.
				"patternProperties":    map[string]any{"^x-": map[string]any{"anyOf": []any{map[string]any{"not": map[string]any{"type": "object"}}, socket}}},
				"additionalProperties": socket,
			},
		},
		"$defs": map[string]any{"socket": tableSchema(socketKeys(), newSocket(""), "listen")},
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(schema); err != nil {
		panic(err) // it is made of maps, lists, strings and numbers
	}
	return b.Bytes()
}

func tableSchema[T any](keys []key[T], base *T, required string) map[string]any {
	properties := map[string]any{}
	for _, k := range keys {
		p := maps.Clone(k.kind.schema)
		p["description"] = strings.ReplaceAll(k.meaning, "`", "")
		if k.max != 0 && k.kind == integer {
			p["minimum"], p["maximum"] = k.min, k.max
		}
		if value, ok := k.standard(k.field(base)); ok {
			p["default"] = json.RawMessage(value) // these few TOML values are JSON too
		}
		properties[k.name] = p
	}
	return map[string]any{
		"type": "object", "additionalProperties": false, "patternProperties": map[string]any{"^x-": true},
		"required": []any{required}, "properties": properties,
	}
}
