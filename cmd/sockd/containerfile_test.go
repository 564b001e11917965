package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// The Containerfile's build command makes a program that needs nothing else, and the
// image starts it as the test of the image's tree does.
func TestContainerfile(t *testing.T) {
	text, err := os.ReadFile("../../Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	build := regexp.MustCompile(`(?m)^RUN (CGO_ENABLED=0 go build .*) -o /out/sockd (.*)$`).FindSubmatch(text)
	if build == nil {
		t.Fatal("the Containerfile builds no sockd")
	}
	out := filepath.Join(t.TempDir(), "sockd")
	cmd := exec.Command("sh", "-c", string(build[1])+" -o "+out+" "+string(build[2]))
	cmd.Dir = "../.."
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	f, err := elf.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("it needs a loader, and the image has none")
		}
	}
	for _, want := range []string{`(?m)^FROM scratch$`, `(?m)^ENTRYPOINT \["/sockd"\]$`, `(?m)^CMD \["run", "/etc/sockd"\]$`, `(?m)^ENV PATH=/bin SOCKD_RUNTIME_DIR=/run/sockd$`} {
		if !regexp.MustCompile(want).Match(text) {
			t.Errorf("the Containerfile has no line like %s", want)
		}
	}
}
