package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// Whoever removes the folder may not be through when it is made again: the folder that
// stays in the end is the one that is watched.
func TestFolderRemovedWhileItIsMadeAgain(t *testing.T) {
	var run atomic.Pointer[string]
	was := crashpoint
	t.Cleanup(func() { crashpoint = was })
	crashpoint = func(point string) {
		if point != "runtime folder: made" {
			return
		}
		if dir := run.Swap(nil); dir != nil {
			os.RemoveAll(*dir)
		}
	}
	f := newFixture(t, "web", onDemand)
	dir := filepath.Join(f.dir, "run")
	run.Store(&dir)
	os.RemoveAll(dir) // it may come back before it is quite gone
	waitFor(t, "the folder", func() bool { return strings.Contains(f.log.String(), "runtime folder restored") })
	for _, name := range staying {
		there := func() bool { ino, _ := inodeAt(filepath.Join(dir, name)); return ino != 0 }
		waitFor(t, name, there)
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		waitFor(t, name+" again", there)
	}
}
