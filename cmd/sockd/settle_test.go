package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The keeper has no room for more sockets, and the supervisor has: what would need
// them fails whole, with the reason, and nothing has changed.
func TestFaultKeeperWithoutRoom(t *testing.T) {
	dir := shortDir(t)
	probe := filepath.Join(built(t), "probe")
	write(t, dir, "web.toml", fmt.Sprintf(webUnit, probe))
	write(t, dir, "each.toml", fmt.Sprintf("[service]\nexec = [%q, \"serve\"]\n[socket.e]\nlisten = \"tcp://127.0.0.1:0\"\nper_instance = true\n", probe))
	r := world{Args: []string{"run", dir}}.start(t, dir)
	r.line("web@1 .*ready")
	keeper, address := r.cmd.Process.Pid, filepath.Join(dir, "s.sock")
	before, err := served("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Prlimit(keeper, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		t.Skip("the limit of another process cannot be set:", err)
	}
	low := limit
	low.Cur = uint64(free(t, keeper)) + 64 + 4
	if err := unix.Prlimit(keeper, unix.RLIMIT_NOFILE, &low, nil); err != nil {
		t.Skip("the limit of another process cannot be set:", err)
	}
	const more = 40
	var b strings.Builder
	for i := range more {
		fmt.Fprintf(&b, "[socket.m%d]\nlisten = \"unix://./m%d.sock\"\n", i, i)
	}
	write(t, dir, "more.toml", b.String())
	next := free(t, keeper)
	for _, args := range [][]string{{"reload"}, {"scale", "each", strconv.Itoa(more)}, {"reload"}} {
		out, errs, code := verb(t, dir, args...)
		if code != exitFailed || !strings.Contains(errs, "not held") || !strings.Contains(errs, "raise the limit") {
			t.Errorf("%v: code %d %s%s", args, code, out, errs)
		}
	}
	if out, _, _ := verb(t, dir, "status"); strings.Contains(out, "more") || strings.Contains(out, "each@2") {
		t.Errorf("after it:\n%s", out)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "m*.sock")); len(left) > 0 {
		t.Errorf("left over: %d paths", len(left))
	}
	if now := free(t, keeper); now > next+4 { // some may be for the moment
		t.Errorf("the keeper's next descriptor was %d and is %d", next, now)
	}
	if err := unix.Prlimit(keeper, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := verb(t, dir, "reload"); code != 0 {
		t.Errorf("with room: code %d %s%s", code, out, errs)
	}
	if made, _ := filepath.Glob(filepath.Join(dir, "m*.sock")); len(made) != more {
		t.Errorf("%d of %d paths", len(made), more)
	}
	if after, err := served("unix", address); err != nil || after != before {
		t.Errorf("%s serves, not %s (%v)", after, before, err)
	}
	t.Logf("promise N1: two reloads and a scaling that the keeper had no room for failed whole; with room the %d sockets were bound", more)
}

// free is the lowest descriptor that a process does not have.
func free(t *testing.T, pid int) (fd int) {
	t.Helper()
	for {
		_, err := os.Lstat(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
		if errors.Is(err, fs.ErrNotExist) {
			return fd
		}
		if err != nil {
			t.Fatal(err)
		}
		fd++
	}
}
