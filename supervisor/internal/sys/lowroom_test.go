package sys

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// fileAt is a file with that text, open at from or the next free number.
func fileAt(t *testing.T, text string, from int) int {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// The low room counts as free: a small limit holds as much as if there were none.
func TestFreeBeside(t *testing.T) {
	used := 0
	for fd := range lowRoom {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			used++
		}
	}
	for _, row := range []struct {
		name      string
		fd, limit int
		want      int
	}{
		{"the first above", lowRoom, lowRoom + 64, 63 + lowRoom - used},
		{"the last", lowRoom + 63, lowRoom + 64, lowRoom - used},
		{"not moved", 10, lowRoom + 64, 64 + lowRoom - used},
		{"no place above", 10, lowRoom, lowRoom - used},
	} {
		if got := FreeBeside(row.fd, row.limit); got != row.want {
			t.Errorf("%s: %d, want %d", row.name, got, row.want)
		}
	}
}

// What stands high up comes to its places in the child, and is high up here still.
func TestStartFromHighDescriptors(t *testing.T) {
	one, two, low := fileAt(t, "one", 300), fileAt(t, "two", 400), fileAt(t, "low", 3)
	s := spec("sh", "-c", "cat <&5; cat <&4; cat <&3; cat <&6")
	s.Files = []int{one, low, two, one}
	launch(t, spec("true")) // opens what is opened once
	before := openDescriptors(t)
	said, st, err := launch(t, s)
	if err != nil || st.Code != 0 || said != "twolowone" { // the second of one is at the end of the file by then
		t.Errorf("%q, %+v, %v", said, st, err)
	}
	if s.Files[0] != one || s.Files[2] != two {
		t.Errorf("what was asked for has become %v", s.Files)
	}
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestHigh(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	up := High(p[1])
	if _, err := unix.FcntlInt(uintptr(p[1]), unix.F_GETFD, 0); p[1] < lowRoom && (up < lowRoom || err != unix.EBADF) {
		t.Errorf("%d has gone to %d, %v", p[1], up, err)
	}
	if flags, err := unix.FcntlInt(uintptr(up), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %x, %v", flags, err)
	}
	if again := High(up); again != up {
		t.Errorf("moved again, to %d", again)
	}
	unix.Close(up)
	if High(-1) != -1 {
		t.Error("no descriptor has become one")
	}
}
