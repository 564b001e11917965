package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// serving is how many listeners this process serves with package http.
func serving() int {
	stacks := make([]byte, 1<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "\nnet/http.(*Server).Serve(")
}

// A control socket that is made anew takes the place of the one whose path is gone, and
// that is closed: a cleaner that comes each night takes no descriptor for good.
func TestRestoredControlSocketReplacesTheOldOne(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	for round := range 3 {
		if err := os.Remove(filepath.Join(f.dir, "run", ControlSocket)); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "a new one", func() bool { return strings.Count(f.log.String(), "runtime folder restored") > round })
		if _, err := NewClient(filepath.Join(f.dir, "run")).Units(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, fmt.Sprintf("one listener, not %d", serving()), func() bool { return serving() == 1 })
}
