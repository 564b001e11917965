package units

import (
	"strings"
	"testing"
)

func contains(text []byte, part string) bool { return strings.Contains(string(text), part) }

// Columns count characters from 1, whatever bytes they are made of.
func TestPlaces(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"a tab is one column", "[service]\n\texec\t=\t3\n", "2:9: service.exec: want"},
		{"letters of two bytes", "[service]\nx-e = \"éé\"\n\"é\" = 3\nexec = \"e\"", "3:1: service.\"é\": unknown"},
		{"behind letters of many bytes", `service = { x-a = "é日本🙂", exec = 3 }`, "1:34: service.exec: want"},
		{"CRLF", "[service]\r\nexec = \"e\"\r\n  watchdog = 3\r\n", "3:14: service.watchdog: want"},
		{"a byte order mark is no column", "\uFEFFservice = 3", "1:1: service: want"},
		{"behind a long string", "[service]\nexec = \"\"\"\ne\n\"\"\"\nwatchdog = 3", "5:12: service.watchdog: want"},
		{"behind a long literal with quotes at its end", "[service]\nexec = '''e''''\nwatchdog = 3", "2:8: service.exec: the quote"},
		{"an element of an array over lines", "[service]\nexec = [ # a comment ]\n  \"e\", # another\n  # and\n  3,\n]", "5:3: service.exec: want"},
		{"brackets and hashes in strings", "[service]\nexec = [\"]#\", '[', 3]", "2:20: service.exec: want"},
		{"the last part of a dotted key", "service . exec=\"e\"\nservice.\"wat\\u0063h\" = 3", "2:9: service.watch: unknown"},
		{"the name in a header with spaces", "[ socket . \"a:b\" ]\nlisten = \":80\"", "1:12: socket.\"a:b\": \"a:b\" is not"},
		{"a NUL", "[service]\nexec = \"a\x00\"", "2:10: a NUL byte (a unit file is UTF-8 text)"},
		{"a control character", "[service]\nexec = \"é\x01\"", "2:10: the control character 0x01"},
		{"a lone CR", "[service]\rexec = \"a\"", "1:10: the control character 0x0d"},
		{"not UTF-8", "[service]\n# é\xff", "2:4: the byte 0xff is not UTF-8"},
		{"UTF-16", "\xff\xfe[\x00", "1:1: the byte 0xff is not UTF-8"},
		{"the replacement character itself", "[service]\nexec = \"\uFFFD\"\nwatchdog = 3", "3:12: service.watchdog: want"},
		{"two keys in a line", "x-a = 1    x-b = 2", "1:12: expected a top-level item"},
		{"a string without end", "[service]\n# é\nexec = [\"a\", \"b]\n", "3:14: the string does not end on its line"},
	} {
		_, err := Parse("web.toml", []byte(tt.text))
		if err == nil || !strings.HasPrefix(err.Error(), "web.toml:"+tt.want) {
			t.Errorf("%s: got %v, want web.toml:%s …", tt.name, err, tt.want)
		}
	}
}

func TestPlacerAgreesWithCounting(t *testing.T) {
	text := "aé\n\n\t日本\r\nx"
	p := newPlacer(text)
	// Forwards, then backwards: the short cut for questions in order must not matter.
	var offsets []int
	for i := range text {
		offsets = append(offsets, i)
	}
	for i := len(offsets) - 1; i >= 0; i-- {
		offsets = append(offsets, offsets[i])
	}
	for _, o := range offsets {
		before := text[:o]
		line := strings.Count(before, "\n") + 1
		col := len([]rune(before[strings.LastIndexByte(before, '\n')+1:])) + 1
		if l, c := p.place(o); l != line || c != col {
			t.Errorf("offset %d is at %d:%d, want %d:%d", o, l, c, line, col)
		}
	}
}
