package supervisor

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor/internal/fake"
	"github.com/sockd/sockd/supervisor/internal/keeper"
	"golang.org/x/sys/unix"
)

// A slowWriter lets a test into each Write.
type slowWriter struct {
	bytes.Buffer
	begun, end chan struct{}
}

func (w *slowWriter) Write(p []byte) (int, error) {
	w.begun <- struct{}{}
	<-w.end
	return w.Buffer.Write(p)
}

// A supervisor that goes leaves the unfinished line to the next one: it neither writes
// what there is of it as a line, nor forgets it.
func TestLineIsNotCutWhenTheSupervisorGoes(t *testing.T) {
	out := &slowWriter{begun: make(chan struct{}, 16), end: make(chan struct{})}
	k := fake.NewKeeper()
	defer k.Close()
	box, err := newOutbox(k, keeper.Inventory{}, out, func() {})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var rests []string
	l, err := newLogs(&lineWriter{format: Text, now: time.Now}, func(_ source, rest []byte) {
		mu.Lock()
		defer mu.Unlock()
		rests = append(rests, string(rest))
	})
	if err != nil {
		t.Fatal(err)
	}
	l.open(box)
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer closePair(p)
	unix.Write(p[1], []byte("whole\nhalf a li"))
	if err := l.add(1, p[0], source{"web", 1, 1}, nil); err != nil {
		t.Fatal(err)
	}
	<-out.begun
	l.close()
	close(out.end)
	<-l.ended
	mu.Lock()
	defer mu.Unlock()
	if got, want := out.String(), "web@1 | whole\n"; got != want {
		t.Errorf("output %q, want %q", got, want)
	}
	if len(rests) != 1 || rests[0] != "half a li" {
		t.Errorf("kept for the next one: %q, want once %q", rests, "half a li")
	}
}
