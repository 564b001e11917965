package activation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// watchdogRole pings until descriptor 3 ends, then prints whether it was asked.
func watchdogRole() error {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		os.NewFile(firstFD, "end").Read(make([]byte, 1))
		cancel()
	}()
	err := Watchdog(ctx)
	fmt.Println("asked:", ctx.Err() != nil, os.Getenv("WATCHDOG_USEC")+os.Getenv("WATCHDOG_PID"))
	return err
}

func TestWatchdog(t *testing.T) {
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ask := func(env ...string) *child {
		return start(t, "watchdog", []*os.File{r}, append(env, m.env())...)
	}
	for _, env := range [][]string{nil, {"WATCHDOG_USEC=20000", "WATCHDOG_PID=1"}} {
		if got := ask(env...).line(t); !strings.HasPrefix(got, "asked: false") {
			t.Errorf("%q: %q", env, got)
		}
	}
	if got := ask("WATCHDOG_USEC=soon").rest(t); !strings.Contains(got, `error: activation: WATCHDOG_USEC="soon"`) {
		t.Errorf("got %q", got)
	}
	c := ask("WATCHDOG_USEC=20000", "WATCHDOG_PID=self")
	for range 4 {
		if got, _ := m.read(t); got != "WATCHDOG=1" {
			t.Errorf("got %q", got)
		}
	}
	w.Close()
	if got := c.rest(t); got != "asked: true \n" {
		t.Errorf("got %q", got)
	}
}

// With WATCHDOG_USEC=2s a ping comes each second, the first at once, and an error
// that has passed is forgotten.
func TestBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		start := time.Now()
		var at []time.Duration
		err := beat(ctx, 2*time.Second, func() error {
			at = append(at, time.Since(start))
			if len(at) == 2 {
				return errors.New("nobody there")
			}
			return nil
		})
		if want := []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second}; !slices.Equal(at, want) || err != nil {
			t.Errorf("pings at %v, %v; want %v", at, err, want)
		}
	})
}
