package units

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse: never a panic, every place inside the text, and what is accepted is
// the same when written and read again.
func FuzzParse(f *testing.F) {
	paths, _ := filepath.Glob("testdata/bad/*.txt")
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for section := range strings.SplitSeq(string(data), "## ") {
			f.Add(section[strings.IndexByte(section, '\n')+1:])
		}
	}
	f.Add("[service]\nexec = 'e'\n[socket.\"a b\"]\nlisten = [':80', '@x', '/x']\nmark = 3\n")
	f.Add("service.exec = 'e'\n[service.ready]\nhttp = '/a?b'\ninterval = '2ms'\n")
	f.Add("x-a = [{a=1},{a.b=\"\"\"\n\\\n\"\"\"}]\n[[x-b]]\nc=1\n[x-b.d]\n[[x-b]]\n")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := Parse("/d/u.toml", []byte(text))
		if err == nil {
			roundTrip(t, u)
			return
		}
		lines := strings.Split(strings.TrimPrefix(text, "\uFEFF"), "\n")
		problems := err.(Problems)
		if len(problems) == 0 {
			t.Fatal("an error without a problem")
		}
		for i, p := range problems {
			if p.Line == 0 {
				if len(text) <= maxFile {
					t.Errorf("no place: %v", p)
				}
				continue
			}
			if p.Line > len(lines) || p.Col < 1 || p.Col > utf8.RuneCountInString(lines[p.Line-1])+1 {
				t.Errorf("outside the text: %v", p)
			}
			if i > 0 && (problems[i-1].Line > p.Line || problems[i-1].Line == p.Line && problems[i-1].Col > p.Col) {
				t.Errorf("out of order: %v before %v", problems[i-1], p)
			}
			if p.Text == "" || strings.ContainsAny(p.Error(), "\n\r") {
				t.Errorf("not a line: %q", p.Error())
			}
			if strings.Contains(p.Text, "unusual way") {
				t.Errorf("the scanner and the library see two trees in %q", text)
			}
		}
	})
}

// FuzzValues reads one string as every kind of value. What a kind accepts it
// writes so that it reads the same again.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"30s", "1h30m", "1.5s", "0s", "10", "-1s", "64MiB", "0B", "9223372036854775807B", "9000000000GiB", "0660", "777", "SIGTERM",
		"SIGRTMIN+3", "SIGRTMIN+-1", "15", "tcp://:80", ":80", "80", "[::1]:80", "udp6://[::]:0", "unix://@a", "@", "/run/x", "./x", "unix:///run/../x/",
		"tcp://fe80::1%eth0:80", "://", "tcp://]:1", "tcp://[", "a 'b c' \"d\\\"\" \\\\", "''", "\\", "\\\n", "www-data", "1000", "eth0", "a$"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		value(t, s, parseDuration, formatDuration)
		value(t, s, parseSize, formatSize)
		value(t, s, parseMode, formatMode)
		value(t, s, parseSignal, formatSignal)
		value(t, s, parseOwner, plain)
		value(t, s, parseDevice, plain)
		value(t, s, parseURLPath, plain)
		value(t, s, func(s string) (Address, *fault) { return parseAddress(s, "/d") }, Address.String)
		value(t, s, func(s string) (string, *fault) {
			words, f := splitCommand(s)
			return strings.Join(words, "\x00"), f
		}, func(joined string) string {
			var quoted []string
			for w := range strings.SplitSeq(joined, "\x00") {
				quoted = append(quoted, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
			}
			if joined == "" {
				return s // no word or one that is empty: Join cannot tell
			}
			return strings.Join(quoted, " ")
		})
	})
}

func value[T any](t *testing.T, s string, parse func(string) (T, *fault), format func(T) string) {
	v, f := parse(s)
	if f != nil {
		if f.text == "" || strings.ContainsAny(f.Error(), "\n") && !strings.Contains(s, "\n") {
			t.Errorf("%q as %T: no message: %q", s, v, f.Error())
		}
		return
	}
	again, f := parse(format(v))
	if f != nil || !reflect.DeepEqual(v, again) {
		t.Errorf("%q as %T is %v, written %q and read as %v, %v", s, v, v, format(v), again, f)
	}
}

// A shell's opinion of each is in the comment of splitCommand; these were checked
// with dash: printf '<%s>' WORDS.
func TestSplitCommand(t *testing.T) {
	for _, tt := range []struct {
		line string
		want []string
	}{
		{`a  b	c`, []string{"a", "b", "c"}},
		{"a\nb", []string{"a", "b"}},
		{`a'b c'd`, []string{"ab cd"}},
		{`'' ""`, []string{"", ""}},
		{`'a\b' "a\b" a\b`, []string{`a\b`, `a\b`, "ab"}},
		{`"a\"b\\c\$d" '$HOME'`, []string{`a"b\c$d`, "$HOME"}},
		{`$HOME *.go # no comment; | &`, []string{"$HOME", "*.go", "#", "no", "comment;", "|", "&"}},
		{`a\ b \' \"`, []string{"a b", "'", `"`}},
		{"a\\\nb", []string{"ab"}},
		{"\"a\\\nb\"", []string{"ab"}},
		{`é'日 本'`, []string{"é日 本"}},
	} {
		got, err := SplitCommand(tt.line)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %q, %v, want %q", tt.line, got, err, tt.want)
		}
	}
	if _, err := SplitCommand("a 'b"); err == nil || !strings.Contains(err.Error(), "no partner") {
		t.Errorf("an open quote: %v", err)
	}
}

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{
		"8080": "tcp://:8080", ":8080": "tcp://:8080", "127.0.0.1:80": "tcp://127.0.0.1:80", "[::1]:80": "tcp://[::1]:80",
		"tcp://:0": "tcp://:0", "udp://[0:0:0::1]:053": "udp://[::1]:53", "/run/x": "unix:///run/x", "./x": "unix:///d/x", "../x": "unix:///x",
		"@x": "unix://@x", "unixgram://x": "unixgram:///d/x", "unixpacket://@x y": "unixpacket://@x y", "unix:///run//y/../x": "unix:///run/x",
	} {
		a, err := ParseAddress(text, "/d")
		if err != nil || a.String() != want {
			t.Errorf("%s: got %s, %v, want %s", text, a, err, want)
		}
	}
	if _, err := ParseAddress("tcp://", "/d"); err == nil {
		t.Error("no port: no error")
	}
}

func BenchmarkParse(b *testing.B) {
	text := []byte(benchmarkUnit(1))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("/etc/sockd/web.toml", text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoad10000(b *testing.B) {
	dir := b.TempDir()
	for i := range 10_000 {
		write(b, dir, "web"+strconv.Itoa(i)+".toml", benchmarkUnit(i))
	}
	b.ReportAllocs()
	for b.Loop() {
		if set, err := Load(dir); err != nil || len(set.Units) != 10_000 {
			b.Fatal(err)
		}
	}
}

func benchmarkUnit(i int) string {
	return fmt.Sprintf(`[service]
exec      = ["./web", "-v"]
ready     = "notify"
instances = 4
environment = { PORT = "80" }

[socket.http]
listen       = "tcp://127.0.0.1:%d"
per_instance = true
backlog      = 1024

[socket.admin]
listen = "unix:///run/web/%d.sock"
mode   = "0660"
`, 1024+i, i)
}
