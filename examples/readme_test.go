package examples

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// blocks returns the code blocks of the example's README in language ("sh", "c"), in
// order, with this place's ports.
func (p *place) blocks(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, "examples", p.name, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, found := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllSubmatch(text, -1) {
		blocks = append(blocks, string(found[1]))
	}
	return blocks
}

// client returns the README's commands for the second terminal and after: all but the
// first block, which builds and runs sockd and is checked against what the test runs.
func (p *place) client(t *testing.T) []string {
	t.Helper()
	blocks := p.blocks(t, "sh")
	if len(blocks) == 0 {
		t.Fatalf("%s: README.md has no commands", p.name)
	}
	first := strings.Split(strings.TrimSpace(blocks[0]), "\n")
	if len(first) != 2 || !strings.HasPrefix(first[0], "go build -o bin/ ./cmd/sockd ./examples/...") {
		t.Errorf("%s: README.md begins with %q", p.name, first)
	}
	unit, ok := strings.CutPrefix(first[len(first)-1], "bin/sockd run ")
	if _, err := os.Stat(filepath.Join(p.dir, unit)); !ok || err != nil {
		t.Errorf("%s: README.md runs %q: %v", p.name, first[len(first)-1], err)
	}
	var lines []string
	for _, block := range blocks[1:] {
		lines = append(lines, strings.Split(strings.TrimSpace(block), "\n")...)
	}
	return lines
}

// TestEachExampleIsComplete: a unit, a README, a program of its own name, no port twice.
func TestEachExampleIsComplete(t *testing.T) {
	want := []string{"conflict", "fd-passing", "hello", "iterative", "multicast", "prefork", "quic", "reuseport", "udp-by-address"}
	folders, err := filepath.Glob("*/README.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, folder := range folders {
		got = append(got, filepath.Dir(folder))
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("examples %q, want %q", got, want)
	}
	users := map[string]string{} // port → example
	for _, name := range want {
		files, err := filepath.Glob(filepath.Join(name, "*.toml"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s has no unit: %v", name, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, program := range regexp.MustCompile(`\.\./\.\./bin/([a-z-]+)`).FindAllSubmatch(text, -1) {
				if _, err := os.Stat(filepath.Join(binaries(t), string(program[1]))); err != nil {
					t.Errorf("%s: %v", file, err)
				}
			}
			for _, port := range ports.FindAllString(string(text), -1) {
				if other := users[port]; other != "" && other != name {
					t.Errorf("port %s is used by %s and %s", port, other, name)
				}
				users[port] = name
			}
		}
	}
}
