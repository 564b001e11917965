package units

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite what the code generates; look at the diff")

// A section of testdata/bad/*.txt begins with "## name" and ends with the messages
// it must earn, each behind "=> ". Its text is web.toml, or several files, each
// behind "== file".
type section struct {
	name  string
	files []file
	want  []string
}

type file struct{ name, text string }

func sections(t *testing.T, path string) []section {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []section
	for line := range strings.Lines(string(data)) {
		title, begins := strings.CutPrefix(line, "## ")
		name, other := strings.CutPrefix(line, "== ")
		want, ends := strings.CutPrefix(line, "=> ")
		if begins {
			list = append(list, section{name: strings.TrimSpace(title)})
			continue
		}
		s := &list[len(list)-1]
		switch {
		case other:
			s.files = append(s.files, file{name: strings.TrimSpace(name)})
		case ends:
			s.want = append(s.want, strings.TrimSuffix(want, "\n"))
		case len(s.want) > 0 && strings.TrimSpace(line) == "":
		default:
			if len(s.files) == 0 {
				s.files = append(s.files, file{name: "web.toml"})
			}
			s.files[len(s.files)-1].text += line
		}
	}
	return list
}

// problemsOf reads files as Load would, without a disk.
func problemsOf(files []file) error {
	var problems Problems
	var sources []*source
	for _, f := range files {
		s := parseSource(f.name, []byte(f.text))
		problems = append(problems, s.problems...)
		sources = append(sources, s)
	}
	_, more := join(sources)
	return append(problems, more...).err()
}

func TestBadUnits(t *testing.T) {
	paths, err := filepath.Glob("testdata/bad/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatal("no testdata", err)
	}
	count := 0
	for _, path := range paths {
		var out strings.Builder
		for _, s := range sections(t, path) {
			count++
			err := problemsOf(s.files)
			if err == nil {
				t.Errorf("%s: %s: no problem found", path, s.name)
				continue
			}
			if got, want := err.Error(), strings.Join(s.want, "\n"); got != want && !*update {
				t.Errorf("%s: %s:\n got %s\nwant %s", path, s.name, strings.ReplaceAll(got, "\n", "\n     "), strings.ReplaceAll(want, "\n", "\n     "))
			}
			out.WriteString("## " + s.name + "\n")
			for _, f := range s.files {
				if len(s.files) > 1 || f.name != "web.toml" {
					out.WriteString("== " + f.name + "\n")
				}
				out.WriteString(f.text)
			}
			out.WriteString("=> " + strings.ReplaceAll(err.Error(), "\n", "\n=> ") + "\n\n")
		}
		if *update {
			if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if count < 90 {
		t.Errorf("%d bad units; there were at least 90", count)
	}
}
