package keeper

import (
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sent sends a signal to this process, and waits until it has been handed out, to heard
// at least.
func sent(t *testing.T, heard <-chan os.Signal, sig unix.Signal) {
	t.Helper()
	if err := unix.Kill(os.Getpid(), sig); err != nil {
		t.Fatal(err)
	}
	for late := time.After(time.Minute); ; {
		select {
		case got := <-heard:
			if got == sig {
				return
			}
		case <-late:
			t.Fatalf("%v was not heard", sig)
		}
	}
}

// Services that end while a keeper is busy with something else, and a reader of its log
// that has gone, do not make it deaf for the signal that is to end sockd.
func TestManyHintsDoNotHideAnOrder(t *testing.T) {
	heard := make(chan os.Signal, 1024)
	signal.Notify(heard, unix.SIGCHLD, unix.SIGPIPE, unix.SIGTERM)
	defer signal.Stop(heard)
	g := newGuard(nil, Duty{})
	g.listen()
	defer g.deafen()
	for range 40 {
		sent(t, heard, unix.SIGCHLD)
		sent(t, heard, unix.SIGPIPE)
	}
	sent(t, heard, unix.SIGTERM)
	for late := time.After(time.Minute); !g.ending; { // it may have been handed to us last
		select {
		case sig := <-g.signals:
			g.take(sig)
		case <-late:
			t.Fatal("SIGTERM was not heard")
		}
	}
	if !slices.Equal(g.waiting, []unix.Signal{unix.SIGTERM}) {
		t.Errorf("waiting %v", g.waiting)
	}
}

// Who asks for the files to be read again and again does not crowd out who asks for the end.
func TestManyReloadsDoNotHideTheEnd(t *testing.T) {
	g := newGuard(nil, Duty{})
	for range 40 {
		g.take(unix.SIGHUP)
	}
	for range 3 {
		g.take(unix.SIGINT)
	}
	if want := []unix.Signal{unix.SIGHUP, unix.SIGHUP, unix.SIGINT, unix.SIGINT}; !slices.Equal(g.waiting, want) {
		t.Errorf("waiting %v, not %v", g.waiting, want)
	}
}

// A supervisor that dies again and again is waited for long, but not by who wants the end.
func TestTheEndDoesNotWaitForTheDelay(t *testing.T) {
	g := newGuard(nil, Duty{Delay: time.Hour, DelayMax: time.Hour})
	g.early = 5
	g.signals <- unix.SIGHUP
	g.signals <- unix.SIGTERM
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		g.wait()
	}()
	select {
	case <-waited:
	case <-time.After(time.Minute):
		t.Fatal("it waits for the next supervisor")
	}
	if !slices.Equal(g.waiting, []unix.Signal{unix.SIGHUP, unix.SIGTERM}) {
		t.Errorf("waiting %v", g.waiting)
	}
}

// An end of which nobody knows how it came is not recorded as an exit status.
func TestRecordOfAnEndThatNobodySaw(t *testing.T) {
	var out strings.Builder
	g := newGuard(nil, Duty{Log: slog.New(slog.NewTextHandler(&out, nil))})
	g.record(Event{ID: ID{"web", 2, 7}, Kind: Exited, Pid: 99, Code: -1, Err: "not our child"})
	if !strings.Contains(out.String(), `unit=web instance=2 generation=7 pid=99 because="not our child"`) {
		t.Error(out.String())
	}
}
