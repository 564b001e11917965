package keeper_test

import (
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// The test binary plays a keeper's process and its supervisors: with GUARD_ROLE set.
func TestMain(m *testing.M) {
	role := os.Getenv("GUARD_ROLE")
	if role == "" {
		os.Exit(m.Run())
	}
	var code int
	if os.Getenv(keeper.FDVariable) == "" {
		code = guardProcess()
	} else {
		code = guardRoles[role]()
	}
	os.Exit(code)
}

// guardWatchdog is how long these keepers are patient: long enough for a supervisor to
// start on a busy machine.
const guardWatchdog = 2 * time.Second

func guardProcess() int {
	l, err := keeper.NewLocal(keeper.Options{Reap: true, NoCgroup: true})
	if err != nil {
		fmt.Println("keeper:", err)
		return 1
	}
	defer l.Close()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if os.Getenv("GUARD_WEAK") != "" { // there the log is what is looked at
		log = slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == "pid" {
				return slog.Attr{}
			}
			return a
		}}))
	}
	code, err := keeper.Guard(l, keeper.Duty{Argv: os.Args, Env: os.Environ(), Log: log,
		Watchdog: guardWatchdog, Steady: guardWatchdog, Delay: time.Millisecond, SafeAfter: 2, Grace: time.Second})
	fmt.Println("code", code, err)
	return code
}

var guardRoles = map[string]func() int{"mute": mute, "dying": dying, "crowded": crowded, "exhausted": exhausted}

// manyRuns have more news than fits into the wire.
const manyRuns = 600

// mute asks for many runs and stops before it has heard of them; the one after it says
// how many there are, and ends when it is told to.
func mute() int {
	r, err := keeper.Dial(3)
	if err != nil {
		return 90
	}
	inv, err := r.Inventory()
	if err != nil {
		return 91
	}
	if len(inv.Children) == 0 {
		for n := range manyRuns {
			r.Spawn(id("web", uint64(n+1)), process("/bin/true"))
		}
		fmt.Println("stops")
		unix.Kill(os.Getpid(), unix.SIGSTOP)
		select {} // any thread may take the signal, and take its time
	}
	fmt.Println("follows", len(inv.Children))
	for sig := range r.Orders() {
		if sig == unix.SIGTERM {
			r.Bye(7)
			return 7
		}
	}
	return 93
}

// dying dies at once, unless it is in safe mode or the file GUARD_HEALED is there.
func dying() int {
	r, err := keeper.Dial(3)
	if err != nil {
		return 90
	}
	_, sick := os.Stat(os.Getenv("GUARD_HEALED"))
	safe := os.Getenv(keeper.SafeVariable)
	switch {
	case safe != "" && os.Getenv("GUARD_WEAK") != "":
		if os.Getenv(keeper.SpillVariable) == "" {
			return 8
		}
		r.Spawn(id("left", 1), process("/bin/sleep", "1000"))
		r.Spawn(id("gone", 2), process("/bin/true"))
		for seen := 0; seen < 2; {
			if ev := <-r.Events(); ev.Kind == keeper.Exited || ev.ID.Unit == "left" {
				seen++
			}
		}
		fmt.Println("spills", os.Getpid(), safe)
		for range r.Orders() {
			return 8
		}
	case safe != "":
		// News that it does not acknowledge, of which it says that it has come.
		r.Spawn(id("safe", uint64(os.Getpid())), process("/bin/true"))
		for ev := range r.Events() {
			if ev.Kind == keeper.Exited {
				break
			}
		}
		fmt.Println("safe", os.Getpid(), safe)
	case sick != nil:
		held, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			r.Hold("listen/web/http", held)
		}
		return 9
	default:
		fmt.Println("ordinary", os.Getpid())
	}
	for sig := range r.Orders() {
		switch {
		case sig == unix.SIGTERM:
			r.Bye(0)
			return 0
		case safe != "":
			r.Again()
			return 1
		}
	}
	return 93
}
