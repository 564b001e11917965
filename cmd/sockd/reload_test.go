package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sockd/sockd/supervisor"
)

// What a reload cannot change on a living socket it says, to who has asked for it.
func TestReloadSaysWhatItCannotChange(t *testing.T) {
	dir := t.TempDir()
	address := freePort(t)
	unit := func(option string) string {
		return "[service]\nexec = \"cat\"\n[socket.http]\nlisten = \"tcp://" + address + "\"\n" + option
	}
	write(t, dir, "cat.toml", unit(""))
	start(t, dir, "run", "cat.toml").line("cat@1 idle")
	write(t, dir, "cat.toml", unit("reuse_port = true\n"))
	stdout, stderr, code := sockd(t, dir, "reload")
	if code != 0 || stdout != "reloaded\n" || !strings.Contains(stderr, "warning: unit cat: socket http: tcp://"+address+": reuse_port: stays as it was") {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
	write(t, dir, "cat.toml", unit("reuse_addr = false\n"))
	stdout, _, code = sockd(t, dir, "reload", "-o", "json")
	var out supervisor.ReloadOutcome
	if err := json.Unmarshal([]byte(stdout), &out); code != 0 || err != nil || out.Outcome.Outcome != supervisor.Done || len(out.Warnings) != 2 {
		t.Errorf("%d %v %s", code, err, stdout)
	}
	if stdout, stderr, code := sockd(t, dir, "reload"); code != 0 || stdout != "reloaded\n" || stderr != "" {
		t.Errorf("with nothing changed: %d %q %q", code, stdout, stderr)
	}
}

// Who does not want to wait for files does not: what was wrong with them is in the log.
func TestReloadDoesNotWait(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "cat.toml", "[service]\nexec = \"cat\"\n[socket.a]\nlisten = \"unix://./a.sock\"\n")
	r := start(t, dir, "run", "cat.toml")
	r.line("cat@1 idle")
	write(t, dir, "cat.toml", "[socket.a]\nlosten = 1\n")
	stdout, stderr, code := sockd(t, dir, "reload", "--no-wait")
	if code != 0 || stdout != "asked to reload\n" || stderr != "" {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
	r.line(`cat.toml:2:1: socket.a.losten: unknown key`)
}

// The problems of a reload stand there as those of a check do: each on a line, its place first.
func TestReloadSaysProblemsAsCheckDoes(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "cat.toml", "[service]\nexec = \"cat\"\n[socket.a]\nlisten = \"unix://./a.sock\"\n")
	r := start(t, dir, "run", "cat.toml")
	r.line("cat@1 idle")
	write(t, dir, "cat.toml", "[service]\nexec = 5\nwotch = 1\n")
	_, check, _ := sockd(t, dir, "check", "cat.toml")
	want := strings.Replace(check, "2 problems", "2 problems; nothing was changed", 1)
	if stdout, stderr, code := sockd(t, dir, "reload"); code != exitFailed || stdout != "" || stderr != want || want == check {
		t.Errorf("%d %q\n got %s\nwant %s", code, stdout, stderr, want)
	}
}
