package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// blocks returns the fenced blocks of one language in a document.
func blocks(t *testing.T, doc, language string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", doc))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		found = append(found, m[1])
	}
	if len(found) == 0 {
		t.Fatalf("%s has no block of %s", doc, language)
	}
	return found
}

func TestProgramsInTheDocumentation(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long, and the race detector sees nothing new in it: without -short")
	}
	dir := t.TempDir()
	for i, text := range blocks(t, "docs/services.md", "go") {
		file := filepath.Join(dir, string(rune('a'+i))+".go")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("go", "build", "-o", strings.TrimSuffix(file, ".go"), file).CombinedOutput(); err != nil {
			t.Errorf("%s\n%s", out, text)
		}
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("gcc is not here: the C program in docs/services.md is not compiled")
	}
	for _, text := range blocks(t, "docs/services.md", "c") {
		file := filepath.Join(dir, "service.c")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(gcc, "-o", filepath.Join(dir, "service"), file).CombinedOutput(); err != nil {
			t.Errorf("%s", out)
		}
		serveAdHoc(t, filepath.Join(dir, "service"), "hello from C\n")
	}
	serveAdHoc(t, filepath.Join(dir, "b"), "ping", "ping")
}
