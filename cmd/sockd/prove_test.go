package main

import (
	"encoding/json"
	"net"
	"regexp"
	"testing"

	"github.com/sockd/sockd/supervisor"
)

func TestRestartWithAProof(t *testing.T) {
	dir := t.TempDir()
	address := freePort(t)
	write(t, dir, "web.toml", `
[service]
exec = ["sleep", "1000"]
start = "boot"
[socket.http]
listen = "tcp://`+address+`"
`)
	r := start(t, dir, "run", "web.toml")
	r.line("web@1 ready")
	stdout, stderr, code := sockd(t, dir, "restart", "web", "--prove")
	if want := `^web: restarted\nweb: (at least )?0 connections(, at most \d+)?, 0 lost, nobody waited longer than [0-9.]+m?s \(\d+ looks in [0-9.]+m?s, deepest queue 0\)\n$`; code != 0 || !regexp.MustCompile(want).MatchString(stdout) {
		t.Errorf("code %d, %s\n%s", code, stderr, stdout)
	}
	c, err := net.Dial("tcp", address) // which nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stdout, stderr, code = sockd(t, dir, "restart", "web", "--prove", "-o", "json")
	var out supervisor.ProvenOutcome
	if err := json.Unmarshal([]byte(stdout), &out); code != 0 || err != nil || out.Outcome.Outcome != supervisor.Done || out.Proof == nil || out.Proof.Waiting != 1 || out.Proof.Counted != "seen" {
		t.Errorf("code %d, %v, %s\n%s", code, err, stderr, stdout)
	}
	for args, want := range map[string]int{"--no-wait": exitMisuse, "--output=xml": exitMisuse} {
		if _, stderr, code := sockd(t, dir, "restart", "web", "--prove", args); code != want {
			t.Errorf("%s: code %d, %s", args, code, stderr)
		}
	}
	if _, stderr, code := sockd(t, dir, "restart", "nobody", "--prove"); code != exitNoUnit {
		t.Errorf("an unknown unit: code %d, %s", code, stderr)
	}
	stdout, _, code = sockd(t, dir, "stop", "web", "-o", "json")
	if err := json.Unmarshal([]byte(stdout), &out); code != 0 || err != nil || out.Unit != "web" {
		t.Errorf("stop: code %d, %v\n%s", code, err, stdout)
	}
}

// A failed outcome is JSON on standard output too, and has its exit code.
func TestProofOfWhatWasRolledBack(t *testing.T) {
	dir := t.TempDir()
	unit := "[service]\nexec = [\"sh\", \"-c\", \"exec sleep 1000\"]\nstart = \"boot\"\n"
	write(t, dir, "web.toml", unit)
	r := start(t, dir, "run", "web.toml")
	r.line("web@1 ready")
	write(t, dir, "web.toml", "[service]\nexec = [\"sh\", \"-c\", \"exit 9\"]\nready = \"notify\"\nstart = \"boot\"\n")
	if _, stderr, code := sockd(t, dir, "reload"); code != 0 {
		t.Fatalf("reload: %d %q", code, stderr)
	}
	r.line("replacement failed")
	stdout, _, code := sockd(t, dir, "restart", "web", "--prove", "-o", "json")
	var out supervisor.ProvenOutcome
	if err := json.Unmarshal([]byte(stdout), &out); code != exitRolledBack || err != nil || out.Outcome.Outcome != supervisor.RolledBack || out.Proof == nil {
		t.Errorf("code %d, %v\n%s", code, err, stdout)
	}
}

func TestScaleWithAProof(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SOCKD_STEERING", "hash")
	write(t, dir, "web.toml", twoSiblings)
	r := start(t, dir, "run", "web.toml")
	r.line(" ready")
	r.line(" ready")
	stdout, stderr, code := sockd(t, dir, "scale", "web", "1", "--prove")
	if want := `^web: scaled\nweb: (at least )?0 connections(, at most \d+)?, 0 lost, nobody waited longer than [0-9.]+m?s \(\d+ looks in [0-9.]+m?s, deepest queue 0\)\n$`; code != 0 || !regexp.MustCompile(want).MatchString(stdout) {
		t.Errorf("code %d, %s\n%s", code, stderr, stdout)
	}
	if _, stderr, code := sockd(t, dir, "scale", "web", "2", "--prove", "--no-wait"); code != exitMisuse {
		t.Errorf("--no-wait: code %d, %s", code, stderr)
	}
}
