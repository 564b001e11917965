//go:build amd64 || arm64

package inherited_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/sys/direct/inherited"
)

// The test is of another package: a test in the package itself gives it imports.
//
// Go raises the limit before anything of ours runs, but not before this package.
func TestBeforeGoRaisesIt(t *testing.T) {
	if os.Getenv("INHERITED_TEST") != "" {
		fmt.Println(inherited.Descriptors())
		return
	}
	for _, soft := range []string{"777", "64"} {
		cmd := exec.Command("/bin/sh", "-c", `ulimit -S -n `+soft+` && exec "$0" -test.run '^TestBeforeGoRaisesIt$'`, os.Args[0])
		cmd.Env = append(os.Environ(), "INHERITED_TEST=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "{"+soft+" ") {
			t.Errorf("with a soft limit of %s: %v, %s", soft, err, out)
		}
	}
}
