package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// sockd's own lines go to standard error, those of services to standard output.

// newLog returns sockd's own log over a writer that must not wait.
func newLog(w io.Writer, format string, colour bool) *slog.Logger {
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, nil))
	}
	return slog.New(&plain{w: w, colour: colour})
}

// colours: only on a terminal, and not where NO_COLOR is set.
func colours(f *os.File) bool {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// plain writes a record as people read it:
//
//	sockd | web@2 backoff: exit status 1 (generation 7, for 200ms)
type plain struct {
	w      io.Writer
	colour bool
	attrs  []slog.Attr
}

func (p *plain) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (p *plain) Handle(_ context.Context, r slog.Record) error {
	var unit, because string
	var instance int64
	var rest []string
	each := func(a slog.Attr) bool {
		switch v := a.Value.Resolve(); a.Key {
		case "unit":
			unit = v.String()
		case "instance":
			instance = v.Int64()
		case "because":
			because = v.String()
		case "err":
			because = v.String()
		case "":
		default:
			text := v.String()
			if strings.ContainsAny(text, " \"\n") {
				text = strconv.Quote(text)
			}
			rest = append(rest, a.Key+" "+text)
		}
		return true
	}
	for _, a := range p.attrs {
		each(a)
	}
	r.Attrs(each)
	var b strings.Builder
	mark := map[slog.Level]string{slog.LevelWarn: "33", slog.LevelError: "31"}[r.Level]
	if p.colour {
		b.WriteString("\x1b[1msockd |\x1b[0m ")
	} else {
		b.WriteString("sockd | ")
	}
	if unit != "" {
		b.WriteString(unit)
		if instance > 0 {
			fmt.Fprintf(&b, "@%d", instance)
		}
		b.WriteByte(' ')
	}
	if p.colour && mark != "" {
		fmt.Fprintf(&b, "\x1b[%sm%s\x1b[0m", mark, r.Message)
	} else {
		b.WriteString(r.Message)
	}
	if because != "" {
		b.WriteString(": " + because)
	}
	if len(rest) > 0 {
		b.WriteString(" (" + strings.Join(rest, ", ") + ")")
	}
	b.WriteByte('\n')
	_, err := io.WriteString(p.w, b.String())
	return err
}

func (p *plain) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &plain{p.w, p.colour, append(p.attrs[:len(p.attrs):len(p.attrs)], attrs...)}
}

func (p *plain) WithGroup(string) slog.Handler { return p }

// maxPending is how many bytes of sockd's own log wait for a slow reader.
const maxPending = 1 << 20

// An async writer writes in a goroutine of its own. When more than maxPending
// waits, lines are dropped, and how many is said in their place.
type async struct {
	w       io.Writer
	note    *slog.Logger // of how many; writes to lost
	lost    bytes.Buffer
	mu      sync.Mutex
	wake    sync.Cond
	pending []byte
	dropped int
	closed  bool
	drained []chan struct{} // closed when nothing waits
	ended   chan struct{}
	writes  atomic.Int64 // how often somebody has taken something
}

func newAsync(w io.Writer, format string, colour bool) *async {
	a := &async{w: w, ended: make(chan struct{})}
	a.note = newLog(&a.lost, format, colour)
	a.wake.L = &a.mu
	go a.run()
	return a
}

func (a *async) Write(line []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.pending)+len(line) > maxPending {
		a.dropped++
		return len(line), nil
	}
	a.sayDropped()
	a.pending = append(a.pending, line...)
	a.wake.Signal()
	return len(line), nil
}

func (a *async) sayDropped() {
	if a.dropped > 0 {
		a.note.Warn(fmt.Sprintf("%d lines dropped", a.dropped), slog.String("because", "nobody read them in time"))
		a.pending = append(a.pending, a.lost.Bytes()...)
		a.lost.Reset()
		a.dropped = 0
	}
}

func (a *async) run() {
	defer close(a.ended)
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		if len(a.pending) == 0 {
			a.sayDropped()
		}
		for len(a.pending) == 0 {
			for _, d := range a.drained {
				close(d)
			}
			a.drained = nil
			if a.closed {
				return
			}
			a.wake.Wait()
		}
		out := a.pending
		a.pending = nil
		a.mu.Unlock()
		a.w.Write(out)
		a.writes.Add(1)
		a.mu.Lock()
	}
}

// Drain returns when what has been taken is written, or nobody takes it for a second.
func (a *async) Drain() {
	drained := make(chan struct{})
	a.mu.Lock()
	a.drained = append(a.drained, drained)
	a.wake.Signal()
	a.mu.Unlock()
	a.await(drained)
}

// await waits until all is done, or nobody has taken anything for a second. That is in
// ten looks: a process that was stopped meanwhile has had no time to write.
func (a *async) await(all <-chan struct{}) {
	before := a.writes.Load()
	for looks := 0; looks < 10; looks++ {
		select {
		case <-all:
			return
		case <-time.After(100 * time.Millisecond):
		}
		if now := a.writes.Load(); now != before {
			looks, before = 0, now
		}
	}
}

// close writes what is left, while somebody takes it: see await.
func (a *async) close() {
	a.mu.Lock()
	a.closed = true
	a.wake.Signal()
	a.mu.Unlock()
	a.await(a.ended)
}
