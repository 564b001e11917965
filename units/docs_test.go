package units

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
)

const (
	docsFile   = "../docs/units.md"
	schemaFile = "../docs/units.schema.json"
)

// TestDocsAreGenerated compares the reference and the schema in docs with what
// keys.go says. With -update it writes them.
func TestDocsAreGenerated(t *testing.T) {
	text, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	begin, rest, ok := bytes.Cut(text, []byte("-update -->\n"))
	_, end, ok2 := bytes.Cut(rest, []byte("<!-- end -->\n"))
	if !ok || !ok2 {
		t.Fatal("the marks of the generated part are gone")
	}
	want := string(begin) + "-update -->\n\n" + string(Reference()) + "\n<!-- end -->\n" + string(end)
	for path, want := range map[string]string{docsFile: want, schemaFile: string(Schema())} {
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s is not what keys.go says (%v): go test ./units -run Docs -update", path, err)
		}
	}
}

// examples are the TOML blocks of the documentation, by the name in their first line.
func examples(t *testing.T) []file {
	text, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	var list []file
	for _, m := range regexp.MustCompile("(?s)```toml\n# ([a-z.]+)\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		list = append(list, file{m[1], m[2]})
	}
	if blocks := strings.Count(string(text), "```toml"); len(list) != blocks || blocks == 0 {
		t.Errorf("%d TOML blocks, %d of them with a name", blocks, len(list))
	}
	return list
}

func TestDocsExamplesParse(t *testing.T) {
	for _, f := range examples(t) {
		u, err := Parse(f.name, []byte(f.text))
		if err != nil {
			t.Error(err)
			continue
		}
		roundTrip(t, u)
	}
	// The two that share a port must be fine together.
	var shared []file
	for _, f := range examples(t) {
		if f.name == "rest.toml" || f.name == "local.toml" {
			shared = append(shared, f)
		}
	}
	if err := problemsOf(shared); err != nil || len(shared) != 2 {
		t.Error(shared, err)
	}
}

// Each message in the documentation is one that is really said.
func TestDocsProblemsAreReal(t *testing.T) {
	text, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	said := problemsOf([]file{
		{"api.toml", "[service]\nexec = \"api\"\n[socket.http]\nlisten = \"tcp://:8080\""},
		{"web.toml", "[service]\nexec = \"web\"\n[socket.http]\nlisten = \"tcp://:8080\"\n\n\nbacklog = 0\n\nreuseprt = true"},
	}).Error() + "\n" + problemsOf([]file{{"web.toml", strings.Repeat("\n", 10) + "[service]\nstop_timeout = 10"}}).Error()
	count := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "web.toml:") {
			count++
			if !strings.Contains(said, strings.TrimSpace(line)) {
				t.Errorf("not said: %sbut\n%s", line, said)
			}
		}
	}
	if count != 4 {
		t.Errorf("%d messages in the documentation, want 4", count)
	}
}
