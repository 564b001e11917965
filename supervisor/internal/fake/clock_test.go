package fake

import (
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	rang := func(ch <-chan struct{}) bool {
		select {
		case <-ch:
			return true
		default:
			return false
		}
	}
	c := NewClock(100)
	past, soon, late := c.At(100), c.At(150), c.At(151)
	if !rang(past) || rang(soon) {
		t.Error("before the clock moved")
	}
	c.Advance(50 * time.Nanosecond)
	if c.Now() != 150 || !rang(soon) || rang(late) {
		t.Error("at", c.Now())
	}
	c.Advance(time.Hour)
	if !rang(late) {
		t.Error("an hour later")
	}
}
