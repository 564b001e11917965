package supervisor

import "testing"

// Whoever follows the events misses none as long as he is not further behind than they
// are kept, and is told exactly how many he has missed when he is.
func TestSlowFollowerOfEvents(t *testing.T) {
	l := newEventLog()
	added := 0
	add := func(n int) {
		for range n {
			added++
			l.add(Event{Gen: uint64(added)})
		}
	}
	add(10)
	f := l.follow()
	defer l.unfollow(f)
	taken := 0
	for _, row := range []struct {
		name string
		more int
		lost int
	}{
		{"those of before", 0, 0},
		{"none", 0, 0},
		{"a few", 3, 0},
		{"as many as are kept", eventLogSize, 0},
		{"one more", eventLogSize + 1, 1},
		{"many more", 3*eventLogSize + 7, 2*eventLogSize + 7},
		{"a few again", 2, 0},
	} {
		add(row.more)
		events, lost := l.take(f)
		if lost != row.lost {
			t.Errorf("%s: %d lost, want %d", row.name, lost, row.lost)
		}
		taken += lost
		for _, e := range events {
			if taken++; e.Gen != uint64(taken) {
				t.Fatalf("%s: event %d, want %d", row.name, e.Gen, taken)
			}
		}
		if taken != added {
			t.Errorf("%s: %d of %d taken", row.name, taken, added)
		}
	}
	if past := l.past(); len(past) != eventLogSize || past[len(past)-1].Gen != uint64(added) {
		t.Errorf("%d are kept", len(past))
	}
}
