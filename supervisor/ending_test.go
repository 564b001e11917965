package supervisor

import (
	"errors"
	"os"
	"path/filepath"
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

// Of several instances the first that has failed gives the code: one that ends well after
// it, before a crash or after, does not hide that.
func TestEssentialUnitEndsWithTheCodeOfTheFirstInstanceThatFailed(t *testing.T) {
	f := prepare(t)
	gate := filepath.Join(f.dir, "gate")
	f.write("main", `
[service]
exec = ["sh", "-c", "case $SOCKD_INSTANCE in 1) exit 5;; esac; read word < `+gate+`.$SOCKD_INSTANCE; exit $word"]
start = "boot"
restart = "no"
essential = true
instances = 3
`)
	for _, n := range []string{".2", ".3"} {
		if err := unix.Mkfifo(gate+n, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.start()
	f.await("the end of the first", func(e Event) bool { return e.What == "exited" && e.Instance == 1 })
	end := func(instance, code string) {
		t.Helper()
		if err := os.WriteFile(gate+"."+instance, []byte(code+"\n"), 0); err != nil { // waits until it is read from
			t.Fatal(err)
		}
	}
	end("2", "6")
	f.await("the end of the second", func(e Event) bool { return e.What == "exited" && e.Instance == 2 })
	f.crash()
	f.start()
	end("3", "0")
	var ended *ExitError
	if err := f.wait(); !errors.As(err, &ended) || ended.Code != 5 {
		t.Errorf("ended with %v, want exit code 5", err)
	}
}
