package sys

import (
	"fmt"
	"os"
	"testing"
)

// roleEnv names the role a re-executed test binary plays instead of testing: a
// test that needs a process of its own starts os.Args[0] with it set.
const roleEnv = "SOCKD_TEST_ROLE"

// roles is filled by init functions of test files. A role returns its exit code.
var roles = map[string]func() int{}

func TestMain(m *testing.M) {
	if name := os.Getenv(roleEnv); name != "" {
		role, ok := roles[name]
		if !ok {
			fmt.Fprintf(os.Stderr, "no test role %q\n", name)
			os.Exit(2)
		}
		os.Exit(role())
	}
	if len(os.TempDir()) > 20 { // a Unix socket's path may have 107 bytes, and tests have long names
		os.Setenv("TMPDIR", "/tmp")
	}
	os.Exit(m.Run())
}
