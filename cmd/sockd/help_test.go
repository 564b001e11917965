package main

import (
	"strings"
	"testing"
)

// Each command that there is says what it is for, and help of it is the same.
func TestHelpOfEachCommand(t *testing.T) {
	dir := t.TempDir()
	for _, c := range newRoot().Commands() {
		stdout, stderr, code := sockd(t, dir, c.Name(), "--help")
		if code != exitDone || stderr != "" || !strings.Contains(stdout, "sockd "+c.Name()) {
			t.Errorf("%s --help: %d %q %q", c.Name(), code, stdout, stderr)
		}
		if again, _, code := sockd(t, dir, "help", c.Name()); code != exitDone || again != stdout {
			t.Errorf("help %s: %d %q, not %q", c.Name(), code, again, stdout)
		}
	}
	all, _, code := sockd(t, dir, "help")
	if plain, _, _ := sockd(t, dir); code != exitDone || all != plain || !strings.Contains(all, "Available Commands") {
		t.Errorf("help: %d %q, not %q", code, all, plain)
	}
}

// The flag that people try first.
func TestVersionFlag(t *testing.T) {
	want, _, _ := sockd(t, t.TempDir(), "version")
	for _, flag := range []string{"--version", "-v"} {
		if got, stderr, code := sockd(t, t.TempDir(), flag); code != exitDone || got != want || want == "" {
			t.Errorf("%s: %d %q %q, not %q", flag, code, got, stderr, want)
		}
	}
}

// A flag that takes one of a few words offers them; one that takes a folder offers folders.
func TestCompletionOfFlags(t *testing.T) {
	for args, want := range map[string]string{
		"run --log-format":     "text\njson\n:4\n",
		"run --orphans":        "adopt\nstop\n:4\n",
		"status --runtime-dir": ":16\n",
		"check":                "toml\n:8\n",
		"doctor":               "toml\n:8\n",
		"run":                  "toml\n:8\n",
		"run -l :80 --":        ":0\n", // a command of any name
	} {
		if got, _, code := sockd(t, t.TempDir(), append(append([]string{"__complete"}, strings.Fields(args)...), "")...); code != 0 || got != want {
			t.Errorf("%s: %d %q, want %q", args, code, got, want)
		}
	}
}
