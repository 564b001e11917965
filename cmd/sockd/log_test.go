package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// A slowReader takes the first that is written when it is told to, and then everything.
type slowReader struct {
	asked, take chan struct{}
	took        bytes.Buffer
}

func (r *slowReader) Write(b []byte) (int, error) {
	if r.took.Len() == 0 {
		r.asked <- struct{}{}
		<-r.take
	}
	return r.took.Write(b)
}

// What nobody reads in time is counted, in the form of the log, also if nothing follows.
func TestDroppedLinesAreCounted(t *testing.T) {
	for format, want := range map[string]string{
		"text": "sockd | 8 lines dropped: nobody read them in time",
		"json": "8 lines dropped",
	} {
		r := &slowReader{asked: make(chan struct{}), take: make(chan struct{})}
		a := newAsync(r, format, false)
		log := newLog(a, format, false)
		log.Info("first")
		<-r.asked
		for range 8 + 8 { // of which 8 fit
			log.Info("long", "text", strings.Repeat("x", maxPending/9))
		}
		close(r.take)
		a.close()
		lines := strings.Split(strings.TrimSpace(r.took.String()), "\n")
		last := lines[len(lines)-1]
		if format == "json" {
			var line struct{ Level, Msg, Because string }
			if err := json.Unmarshal([]byte(last), &line); err != nil || line.Level != "WARN" || line.Because != "nobody read them in time" {
				t.Errorf("json: %.100q, %v", last, err)
			}
			last = line.Msg
		}
		if len(lines) != 1+8+1 || last != want {
			t.Errorf("%s: %s, last %.100q", format, fmt.Sprint(len(lines), " lines"), last)
		}
	}
}
