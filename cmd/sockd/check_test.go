package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckInJSON(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.toml", "[service]\nexec = \"./gone\"\n[socket.s]\nlisten = \":80\"\n")
	check := func(want int) (out checked) {
		t.Helper()
		stdout, stderr, code := sockd(t, dir, "check", ".", "-o", "json")
		if err := json.Unmarshal([]byte(stdout), &out); err != nil || code != want || stderr != "" {
			t.Fatalf("code %d, want %d, %v, %q\n%s", code, want, err, stderr, stdout)
		}
		return out
	}
	out := check(exitDone)
	if out.Units != 1 || out.Sockets != 1 || len(out.Problems) != 0 || len(out.Warnings) != 1 || out.Warnings[0].Line != 2 || out.Warnings[0].Key != "service.exec" {
		t.Errorf("%+v", out)
	}
	if stdout, stderr, code := sockd(t, dir, "check", "."); code != 0 || stdout != "1 unit, 1 socket: no problems\n" || !strings.HasPrefix(stderr, "a.toml:2:8: service.exec: warning: ") {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
	write(t, dir, "b.toml", "[service]\nexec = \"sh\"\nstrat = 1\n")
	if out := check(exitFailed); len(out.Problems) != 1 || out.Problems[0].File != "b.toml" || out.Problems[0].Line != 3 || out.Problems[0].Column != 1 || out.Problems[0].Hint == "" {
		t.Errorf("%+v", out)
	}
}

// A folder without units is most often a wrong one.
func TestRunWithoutUnitsWarns(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := start(t, dir, "run", "empty")
	r.line("no units")
	write(t, filepath.Join(dir, "empty"), "cat.toml", "[service]\nexec = \"cat\"\n[socket.s]\nlisten = \"unix://./s.sock\"\n")
	if _, stderr, code := sockd(t, dir, "reload"); code != 0 {
		t.Errorf("reload: %d %q", code, stderr)
	}
	r.line("cat@1 idle")
}
