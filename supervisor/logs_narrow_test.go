package supervisor

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor/internal/fake"
	"github.com/sockd/sockd/supervisor/internal/keeper"
	"golang.org/x/sys/unix"
)

// A user who has many pipes already is given small ones (pipe(7),
// /proc/sys/fs/pipe-user-pages-soft): a last line without an end that is longer than
// those still comes out, and keeps nobody waiting.
func TestLastLineIsLongerThanThePipes(t *testing.T) {
	t.Run("a pipe with room", func(t *testing.T) { lastLine(t, 1<<16) })
	t.Run("a full pipe", func(t *testing.T) { lastLine(t, 8192) })
}

func lastLine(t *testing.T, size int) {
	k := fake.NewKeeper()
	defer k.Close()
	out := &lockedBuffer{}
	box, err := newOutbox(k, keeper.Inventory{}, out, func() {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(box.taken[1]), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	l, err := newLogs(&lineWriter{format: Text, now: time.Now}, func(source, []byte) {})
	if err != nil {
		t.Fatal(err)
	}
	l.open(box)
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer closePair(p)
	unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, size) // or less, for such a user
	line := strings.Repeat("x", 20_000)
	n, err := unix.Write(p[1], []byte(line))
	if n <= 4096 {
		t.Fatal(n, err)
	}
	line = line[:n]
	if err := l.add(1, p[0], source{"web", 1, 1}, nil); err != nil {
		t.Fatal(err)
	}
	l.finish(1)
	select {
	case <-l.done:
	case <-time.After(patience):
		t.Fatal("it waits for itself")
	}
	l.close()
	<-l.ended
	if got, want := out.String(), "web@1 | "+line+"\n"; got != want {
		t.Errorf("output %.40q of %d bytes, want %.40q of %d", got, len(got), want, len(want))
	}
}

// A supervisor that comes later may have a smaller pipe to look through than the one in
// which its predecessor has left lines on their way.
func TestWhatWasOnItsWayIsMoreThanCanBeSeenAtOnce(t *testing.T) {
	k := fake.NewKeeper()
	defer k.Close()
	out := &lockedBuffer{}
	state, err := json.Marshal(owner{Unit: "web", Instance: 1, Gen: 1, Rest: []byte("begun and ")})
	if err != nil {
		t.Fatal(err)
	}
	box, err := newOutbox(k, keeper.Inventory{States: map[string][]byte{outState: state}}, out, func() {})
	if err != nil {
		t.Fatal(err)
	}
	room, err := unix.FcntlInt(uintptr(box.taken[1]), unix.F_GETPIPE_SZ, 0) // 8 KiB for a user who has many
	if err != nil {
		t.Fatal(err)
	}
	text, want := "ended\n", "web@1 | begun and ended\n"
	for n := 0; n < 2000 && len(text) < room-100; n++ {
		line := fmt.Sprintf("line %d\n", n)
		text, want = text+line, want+"web@1 | "+line
	}
	writeAll(box.taken[1], []byte(text+"and a rest"))
	rests := make(chan string, 8)
	l, err := newLogs(&lineWriter{format: Text, now: time.Now}, func(_ source, rest []byte) { rests <- string(rest) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(l.glass[1]), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	l.open(box)
	waitFor(t, "the output", func() bool { return len(out.String()) >= len(want) })
	l.close()
	<-l.ended
	if got := out.String(); got != want {
		t.Errorf("%d bytes of %d were written", len(got), len(want))
	}
	if got := <-rests; got != "and a rest" {
		t.Errorf("kept %q", got)
	}
}
