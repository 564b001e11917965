package supervisor

import (
	"errors"
	"strings"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"golang.org/x/sys/unix"
)

// The exit code of an essential unit is that of a process that has ended by itself, also
// where one that it had replaced, and that was told to leave, ends after it.
func TestEssentialUnitEndsWithTheCodeOfTheLastThatNobodyAsked(t *testing.T) {
	f := newFixture(t, "main", `
[service]
exec = ["sh", "-c", "[ $SOCKD_GENERATION = 1 ] || exit 5; trap '' TERM; echo stays; exec sleep 600"]
start = "boot"
restart = "no"
essential = true
overlap_time = "0s"
`)
	waitFor(t, "the first is deaf", func() bool { return strings.Contains(f.out.String(), "stays") })
	if _, err := verbs["restart"](f.s, t.Context(), errand{unit: "main"}); err != nil {
		t.Fatal(err)
	}
	f.await("the end of the second", func(e Event) bool { return e.What == "exited" && e.Gen == 2 })
	if err := f.keeper.Signal(keeper.ID{Unit: "main", Instance: 1, Gen: 1}, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var ended *ExitError
	if err := f.wait(); !errors.As(err, &ended) || ended.Code != 5 {
		t.Errorf("ended with %v, want exit code 5", err)
	}
}
