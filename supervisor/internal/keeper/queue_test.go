package keeper

import (
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// News arrives in the order in which it came, whichever way each piece takes: at once,
// or out of the queue.
func TestNewsArrivesInOrder(t *testing.T) {
	const pieces = 20_000
	t.Run("queue", func(t *testing.T) {
		var q eventQueue
		q.init()
		to, gone := make(chan Event, 4), make(chan struct{})
		defer close(gone)
		go q.deliver(to, gone)
		go func() {
			for n := range pieces {
				q.put(Event{Pid: n}, to)
			}
		}()
		inOrder(t, to, pieces)
	})
	t.Run("ledger", func(t *testing.T) {
		l := NewLedger()
		defer l.Close()
		for n := range pieces {
			if _, giveBack, err := l.List(ID{Unit: "web", Gen: uint64(n)}, nil); err != nil {
				t.Fatal(err)
			} else {
				giveBack()
			}
		}
		go func() {
			for n := range pieces {
				l.Post(Event{ID: ID{Unit: "web", Gen: uint64(n)}, Kind: Exited, Pid: n})
			}
		}()
		inOrder(t, l.Events(), pieces)
	})
}

// Between leaving the queue and arriving news is in neither: what comes then waits behind it.
func TestNewsBehindNewsOnItsWay(t *testing.T) {
	q, to := eventQueue{moving: true}, make(chan Event, 1)
	q.init()
	q.put(Event{}, to)
	if len(to) != 0 || len(q.list) != 1 {
		t.Errorf("queue: %d in front, %d behind", len(to), len(q.list))
	}
	web := ID{Unit: "web"}
	l := Ledger{moving: true, events: make(chan Event, 1), runs: map[ID]*Child{web: {ID: web}}}
	l.more = sync.NewCond(&l.mu)
	l.Post(Event{ID: web, Kind: Exited})
	if len(l.events) != 0 || len(l.queue) != 1 {
		t.Errorf("ledger: %d in front, %d behind", len(l.events), len(l.queue))
	}
}

func inOrder(t *testing.T, from <-chan Event, pieces int) {
	t.Helper()
	for n := range pieces {
		if ev := <-from; ev.Pid != n {
			t.Fatalf("the %d. piece of news is the %d.", n, ev.Pid)
		}
	}
}

// A letter that would have to wait is not written at all, and one that need not is.
func TestLetterThatWouldWait(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	w, err := newWire(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	letter := message{op: opNews, body: make([]byte, 1000)}
	written := 0
	for ; err == nil; written++ {
		if err = w.writeNow(letter); written > 1<<20 {
			t.Fatal("nobody reads, and it goes on")
		}
	}
	if written--; err != errWouldWait || written == 0 {
		t.Fatalf("%v after %d", err, written)
	}
	read := 0
	for buf := make([]byte, maxFrame); ; read++ {
		n, err := unix.Read(pair[1], buf)
		if err != nil || n != frameHeader+len(letter.body) {
			t.Fatalf("read %d, %v", n, err)
		}
		if read == written-1 {
			break
		}
	}
	if err := w.writeNow(letter); err != nil {
		t.Errorf("with room again: %v", err)
	}
}
