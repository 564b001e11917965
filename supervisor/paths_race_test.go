package supervisor

import (
	"path/filepath"
	"strings"
	"testing"
)

// A folder that is removed just when its path is about to be watched is missed by the
// watch: what is wrong then is mended as if it had been heard of.
func TestFolderThatGoesBeforeItIsWatched(t *testing.T) {
	f := prepare(t, "up", onPath)
	dir := filepath.Join(f.dir, "d")
	gone := false
	crashpoint = func(point string) { // in the loop, or before it has begun
		if point == "path: about to be watched" && !gone {
			gone = true
			removeFolder(t, dir)
		}
	}
	defer func() { crashpoint = nil }()
	f.start()
	waitFor(t, "a new socket", func() bool { return strings.Contains(f.log.String(), "path made again") })
	if k := f.unit("up").Sockets[0]; k.Error != "" {
		t.Errorf("nobody can reach it: %s", k.Error)
	}
	if _, err := ask("unix", filepath.Join(dir, "up.sock")); err != nil {
		t.Error(err)
	}
	f.stop()
}
