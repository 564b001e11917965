package main

import (
	"fmt"
	"os"
	"regexp"
	"testing"
)

// The keeper's process pins what the supervisor's asks it to.
func TestInstancesOnOneCPUEach(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "web.toml", "[service]\nexec = [\"sleep\", \"1000\"]\nstart = \"boot\"\ninstances = 3\ncpu = \"spread\"\n")
	r := start(t, dir, "run", "web.toml")
	r.line("web@1 ready")
	eventually(t, "all are ready", func() bool { return statusOf(t, dir, "web").State == "ready" })
	for _, in := range statusOf(t, dir, "web").Instances {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", in.Runs[0].Pid))
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`(?m)^Cpus_allowed_list:\t\d+$`).Match(text) {
			t.Errorf("instance %d:\n%s", in.Instance, text)
		}
	}
}
