package units

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// The schema takes every good example, and refuses what a schema can see.
func TestSchema(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	for _, f := range examples(t) {
		if why := rootSchema(schema).valid(schema, tree(t, f.text), "unit"); why != "" {
			t.Errorf("%s: %s", f.name, why)
		}
	}
	for _, good := range []string{"[service]\nexec = 'e'\nready = { http = '/', x-a = 1, timeout = '1s' }", "[service]\nexec = 'e'\nready.command = ['e']", "[socket]\nx-a = 1\ns.listen = ':1'\ns.x-b = {}", "x-a = 1\n[service]\nexec = ['e', '']\nx-b = 1\nwatchdog = '1.5h1μs'\numask = '077'"} {
		if why := rootSchema(schema).valid(schema, tree(t, good), "unit"); why != "" {
			t.Errorf("%s: %s", good, why)
		}
		if _, err := Parse("u.toml", []byte(good)); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{
		"", "[socket.x-s]\nlisten = 3", "[socket.s]\nlisten = '/s'\nmode = '1660'", "[service]\nexec = 'e'\nwatchdog = '.5s'", "other = 1", "service = 1", "[service]", "[service]\nexec = []", "[service]\nexec = 'e'\nExec = 'e'",
		"[service]\nexec = 'e'\nstop_timeout = 10", "[service]\nexec = 'e'\nstop_timeout = '10'", "[service]\nexec = 'e'\ninstances = 0",
		"[service]\nexec = 'e'\nready = {}", "[service]\nexec = 'e'\nready = { http = '/', tcp = true }", "[service]\nexec = 'e'\nready = { tcp = false }",
		"[service]\nexec = 'e'\nready = { http = '/#' }", "[service]\nexec = 'e'\nready = { tpc = true }", "[service]\nexec = 'e'\nready = 'http'",
		"[service]\nexec = 'e'\nrestart = 'never'", "[service]\nexec = 'e'\nessential = 'yes'", "[service]\nexec = 'e'\nenvironment = {A = 1}",
		"[service]\nexec = 'e'\nenvironment = {'a b' = ''}", "[socket.s]\nmark = 1", "[socket.s]\nlisten = ':80'\nbacklog = 65536",
		"[socket.'a:b']\nlisten = ':80'", "[socket.s]\nlisten = ':80'\noptional = ['listen']", "[socket.s]\nlisten = ':80'\nreceive_buffer = '64K'",
	} {
		if rootSchema(schema).valid(schema, tree(t, bad), "unit") == "" {
			t.Errorf("the schema takes %q", bad)
		}
		if _, err := Parse("u.toml", []byte(bad)); err == nil {
			t.Errorf("Parse takes %q", bad)
		}
	}
}

// tree is a text as JSON sees it.
func tree(t *testing.T, text string) any {
	data, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if v == nil {
		return map[string]any{}
	}
	return v
}

// A rootSchema is where references lead.
type rootSchema map[string]any

// valid checks v against the part of JSON Schema that we use, and says what is
// wrong first. A keyword it does not know is wrong too.
func (root rootSchema) valid(schema any, v any, at string) string {
	s, ok := schema.(map[string]any)
	if !ok {
		if schema == true {
			return ""
		}
		return at + ": refused"
	}
	object, _ := v.(map[string]any)
	list, _ := v.([]any)
	text, isText := v.(string)
	number, isNumber := v.(float64)
	for word, arg := range s {
		good := true
		switch word {
		case "$schema", "title", "description", "default", "$defs":
		case "$ref":
			return root.valid(root["$defs"].(map[string]any)[strings.TrimPrefix(arg.(string), "#/$defs/")], v, at)
		case "not":
			good = root.valid(arg, v, at) != ""
		case "type":
			switch arg {
			case "object":
				good = object != nil
			case "array":
				good = list != nil
			case "string":
				good = isText
			case "integer":
				good = isNumber && number == float64(int64(number))
			case "boolean":
				_, good = v.(bool)
			default:
				return "unknown type"
			}
		case "enum":
			good = false
			for _, e := range arg.([]any) {
				good = good || e == v
			}
		case "anyOf":
			good = false
			for _, a := range arg.([]any) {
				good = good || root.valid(a, v, at) == ""
			}
		case "pattern":
			good = !isText || regexp.MustCompile(arg.(string)).MatchString(text)
		case "minLength":
			good = !isText || len(text) >= int(arg.(float64))
		case "minItems":
			good = list == nil || len(list) >= int(arg.(float64))
		case "minProperties":
			good = object == nil || len(object) >= int(arg.(float64))
		case "minimum":
			good = !isNumber || number >= arg.(float64)
		case "maximum":
			good = !isNumber || number <= arg.(float64)
		case "uniqueItems":
		case "items":
			for _, e := range list {
				if why := root.valid(arg, e, at+"[]"); why != "" {
					return why
				}
			}
		case "required":
			for _, name := range arg.([]any) {
				if _, there := object[name.(string)]; object != nil && !there {
					return at + ": no " + name.(string)
				}
			}
		case "propertyNames":
			for name := range object {
				if why := root.valid(arg, name, at+"."+name); why != "" {
					return why
				}
			}
		case "properties", "patternProperties", "additionalProperties":
			if word != "properties" && s["properties"] != nil {
				break // looked at with properties
			}
			for name, kid := range object {
				if why := root.valid(forProperty(s, name), kid, at+"."+name); why != "" {
					return why
				}
			}
		default:
			return "unknown keyword " + word
		}
		if !good {
			return at + ": " + word
		}
	}
	return ""
}

func forProperty(s map[string]any, name string) any {
	if properties, ok := s["properties"].(map[string]any); ok && properties[name] != nil {
		return properties[name]
	}
	patterns, _ := s["patternProperties"].(map[string]any)
	for p, schema := range patterns {
		if regexp.MustCompile(p).MatchString(name) {
			return schema
		}
	}
	return s["additionalProperties"]
}
