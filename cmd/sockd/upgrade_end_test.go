package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// folderOfRuns is the folder in which sockd has made the cgroup of one of its services; ""
// if that has none of its own.
func folderOfRuns(t *testing.T, pid int) string {
	t.Helper()
	cgroups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut("\n"+string(cgroups), "\n0::")
	path, _, _ := strings.Cut(rest, "\n")
	if !strings.Contains(path, "/sockd-") {
		return ""
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			folder := filepath.Join(f[1], filepath.Dir(path))
			if _, err := os.Stat(folder); err == nil {
				return folder
			}
		}
	}
	return ""
}

// A keeper that has taken another's place leaves at its end no more than that would have.
func TestUpgradedKeeperLeavesNoCgroup(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "cat.toml", "[service]\nexec = [\"sleep\", \"1000\"]\n")
	file := variant(t, "v1.0.0", false)
	r := startFile(t, dir, file, "run", "cat.toml")
	r.line("cat@1 ready")
	if stdout, stderr, code := sockd(t, dir, "upgrade", file); code != exitDone {
		t.Fatalf("%d %q %q", code, stdout, stderr)
	}
	_, pids, _ := facts(t, dir)
	var pid int
	if len(pids) == 1 {
		fmt.Sscanf(pids[0], "cat@1.1 pid %d", &pid)
	}
	folder := folderOfRuns(t, pid)
	if folder == "" {
		t.Skip("services have no cgroups of their own")
	}
	r.signal(15)
	if code := r.wait(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("%s is left, %v", folder, err)
	}
}
