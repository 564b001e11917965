package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// watched are the inotify descriptors that the keeper holds, by name: how many watches
// each has.
func (f *fixture) watched() map[string]int {
	f.t.Helper()
	inv, err := f.keeper.Inventory()
	if err != nil {
		f.t.Fatal(err)
	}
	all := map[string]int{}
	for _, held := range []string{doorHeld, pathsHeld} {
		if fd, ok := inv.Descriptors[held]; ok {
			text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
			if err != nil {
				f.t.Fatal(err)
			}
			all[held] = strings.Count(string(text), "inotify wd:")
		}
	}
	return all
}

// logged waits until the log has said so n times; nothing else tells of it.
func (f *fixture) logged(what string, n int) {
	f.t.Helper()
	for late := time.Now().Add(patience); strings.Count(f.log.String(), what) < n; <-time.After(time.Millisecond) {
		if time.Now().After(late) {
			f.t.Fatalf("not in time: %s\nlog:\n%s", what, f.log)
		}
	}
}

// What watches the runtime folder and paths outlives a supervisor, which so dies at
// once; the next one goes on with it, and adds nothing to it. The last one closes it.
func TestWatchesOutliveASupervisor(t *testing.T) {
	f := newFixture(t, "up", onPath)
	path := filepath.Join(f.dir, "d", "up.sock")
	want := map[string]int{doorHeld: 1, pathsHeld: 2} // the folder; the path and its folder
	for round := range 3 {
		if round > 0 {
			f.crash()
			if got := f.watched(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("with no supervisor there are watches %v, not %v", got, want)
			}
			f.start()
		}
		for _, remove := range []string{path, filepath.Join(f.dir, "run", ControlSocket)} {
			if err := os.Remove(remove); err != nil {
				t.Fatal(err)
			}
		}
		f.healed("path restored", round+1)
		f.logged("runtime folder restored", round+1)
	}
	f.stop()
	if got := f.watched(); len(got) > 0 {
		t.Errorf("after the end the keeper still holds %v", got)
	}
}
