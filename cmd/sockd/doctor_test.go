package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sockd/sockd/supervisor"
	"golang.org/x/sys/unix"
)

var subjects = []string{"steering ebpf", "steering classic-bpf", "steering hash", "tcp_migrate_req", "cgroup", "spawning", "pidfd", "proc",
	"descriptors", "backlog", "runtime folder", "ipv6"}

// doctor asks in that world, of which it says nothing but JSON.
func doctor(t *testing.T, w world, args ...string) map[string]supervisor.Finding {
	t.Helper()
	w.Args = append([]string{"doctor", "-o", "json"}, args...)
	r := w.start(t, shortDir(t))
	if code := r.wait(); code != exitDone {
		t.Fatalf("doctor: code %d", code)
	}
	var list []supervisor.Finding
	if err := json.Unmarshal(r.stdout.Bytes(), &list); err != nil {
		t.Fatalf("%v\n%s", err, r.stdout.String())
	}
	found := map[string]supervisor.Finding{}
	for i, f := range list {
		if i < len(subjects) && f.Subject != subjects[i] {
			t.Errorf("finding %d is about %q, not %q", i, f.Subject, subjects[i])
		}
		if f.Found == "" || f.Follows == "" || f.OK && f.Remedy != "" || !f.OK && f.Remedy == "" {
			t.Errorf("incomplete: %+v", f)
		}
		found[f.Subject] = f
	}
	return found
}

func TestDoctorInThisWorld(t *testing.T) {
	dir := t.TempDir()
	stdout, stderr, code := sockd(t, dir, "doctor")
	if code != exitDone || stderr != "" {
		t.Errorf("code %d, %s", code, stderr)
	}
	for _, s := range subjects {
		if !strings.Contains(stdout, s) {
			t.Errorf("nothing about %s:\n%s", s, stdout)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// What is not there is said, with what follows and what helps.
func TestDoctorInPoorWorlds(t *testing.T) {
	for _, c := range []struct {
		name, subject, found, follows string
		dir                           string // runtime folder
		root, namespaces              bool
		w                             world
	}{
		{name: "no bpf", subject: "steering ebpf", found: "EPERM", follows: "not: siblings have weights", w: world{Answers: map[string]int{"bpf": int(unix.EPERM)}}},
		{name: "no bpf for flows", subject: "flows", found: "game of unit many asks for flows = \"quic\"", follows: "not kept", w: world{Answers: map[string]int{"bpf": int(unix.EPERM)}}},
		{name: "no pidfd_open", subject: "pidfd", found: "ENOSYS", follows: "start time", w: world{Answers: map[string]int{"pidfd_open": int(unix.ENOSYS)}}},
		{name: "128 descriptors", subject: "descriptors", found: "at most 128", follows: "need about 3", w: world{Limits: map[int]uint64{unix.RLIMIT_NOFILE: 128}}},
		{name: "no cgroup", subject: "cgroup", found: "no writable cgroup", follows: "mark", namespaces: true, root: true,
			w: world{Namespaces: unix.CLONE_NEWNS, NoCgroup: true}},
		{name: "another user, root's folder", subject: "runtime folder", found: "EACCES", follows: "refuses", root: true,
			dir: "/proc/x", w: world{UID: 65534}},
		{name: "a name that is too long", subject: "runtime folder", found: "107", follows: "refuses",
			dir: "/tmp/" + strings.Repeat("x", 120)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.root {
				needRoot(t)
			}
			if c.namespaces {
				needNamespaces(t)
			}
			many := write(t, shortDir(t), "many.toml", "[service]\nexec = \"x\"\ninstances = 30\n[socket.http]\nlisten = \":0\"\nbacklog = 60000\n[socket.game]\nlisten = \"udp://:0\"\nper_instance = true\nflows = \"quic\"\n")
			os.Chmod(many, 0o644)
			args := []string{many}
			if c.dir != "" {
				args = append(args, "--runtime-dir", c.dir)
			}
			found := doctor(t, c.w, args...)
			if f := found[c.subject]; f.OK || !strings.Contains(f.Found, c.found) || !strings.Contains(f.Follows, c.follows) {
				t.Errorf("%+v", f)
			}
			most, _ := os.ReadFile("/proc/sys/net/core/somaxconn")
			if n, _ := strconv.Atoi(strings.TrimSpace(string(most))); n >= 60000 {
				t.Log("this machine allows what is asked for:", n)
			} else if f := found["backlog"]; f.OK || !strings.Contains(f.Follows, "http of unit many asks for 60000") {
				t.Errorf("%+v", f)
			}
		})
	}
}

func TestDoctorReadsUnits(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "bad.toml", "[service]\nexex = 1\n")
	stdout, _, code := sockd(t, dir, "doctor", "bad.toml")
	if code != exitDone || !strings.Contains(stdout, "service.exex: unknown key") {
		t.Errorf("code %d\n%s", code, stdout)
	}
	if _, stderr, code := sockd(t, dir, "doctor", "-o", "xml"); code != exitMisuse {
		t.Errorf("-o xml: code %d, %s", code, stderr)
	}
}
