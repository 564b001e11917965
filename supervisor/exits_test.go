package supervisor

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var spawns = flag.Int("spawns", 400, "how many runs TestManyShortRuns starts")

// N4: a thousand processes that end in the same moment.
func TestThousandExitsAtOnce(t *testing.T) {
	units, each := 10, 100
	if testing.Short() {
		units = 2
	}
	if most := fileLimit(); most < uint64(6*units*each) {
		t.Skipf("needs %d open files, and the limit is %d", 6*units*each, most)
	}
	f := prepare(t)
	gate := filepath.Join(f.dir, "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	for n := range units {
		// Who opens the gate to read waits until somebody opens it to write.
		f.write(fmt.Sprintf("u%d", n), fmt.Sprintf(`
[service]
exec = ["/bin/sh", "-c", "exec < gate; test $SOCKD_INSTANCE -le 10 && kill -9 $$; exit $(( (SOCKD_INSTANCE + %d) %% 200 ))"]
instances = %d
restart = "no"
`, n, each))
	}
	f.start()
	for range units * each {
		f.await("everybody there", func(e Event) bool { return e.What == "ready" })
	}
	fd, err := unix.Open(gate, unix.O_RDWR, 0) // those not yet there find it open
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	records := map[string]int{}
	wrong := 0
	for range units * each {
		e := f.await("an exit", func(e Event) bool { return e.What == "exited" })
		var unit int
		fmt.Sscanf(e.Unit, "u%d", &unit)
		code, signal := (e.Instance+unit)%200, ""
		if e.Instance <= 10 {
			code, signal = 0, "SIGKILL"
		}
		if e.Exit.Code != code || e.Exit.Signal != signal || e.Exit.Cause != "by itself" {
			t.Errorf("%s@%d ended with %+v, want code %d signal %q", e.Unit, e.Instance, e.Exit, code, signal)
			wrong++
		}
		records[fmt.Sprintf("%s@%d.%d", e.Unit, e.Instance, e.Gen)]++
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", e.Pid)); err == nil && strings.Contains(string(stat), ") Z ") {
			t.Errorf("process %d has a record and is still a zombie", e.Pid)
		}
	}
	if len(records) != units*each {
		t.Errorf("records of %d runs, %d were started", len(records), units*each)
	}
	f.stop()
	more := 0
	for _, e := range f.rest() {
		if e.What == "exited" {
			more++
		}
	}
	if more > 0 {
		t.Errorf("%d records too many", more)
	}
	t.Logf("promise N4: %d exits at once, %d records, %d wrong, %d twice", units*each, len(records), wrong, more)
}

// rest is every event that has not been waited for. The supervisor has ended.
func (f *fixture) rest() []Event {
	f.take()
	return f.past[f.seen:]
}

// N4: many runs of a program that exits at once, a hundred side by side.
func TestManyShortRuns(t *testing.T) {
	const instances = 100
	f := newFixture(t, "short", fmt.Sprintf(`
[service]
exec = ["/bin/sh", "-c", "exit 3"]
instances = %d
restart = "no"
`, instances))
	wanted := uint64(max(instances, *spawns/instances*instances))
	records := make([]int, wanted+1) // by generation
	wrong := 0
	for got := uint64(0); got < wanted; got++ {
		if got > 0 && got%instances == 0 {
			f.ask("start", "short") // what becomes of it is known by its exits
		}
		e := f.await("an exit", func(e Event) bool { return e.What == "exited" || e.What == "not started" })
		f.past, f.seen = f.past[f.seen:], 0
		if e.Exit == nil || e.Exit.Code != 3 || e.Gen > wanted {
			t.Fatalf("%+v %+v", e, e.Exit)
		}
		if records[e.Gen]++; records[e.Gen] != 1 {
			wrong++
		}
	}
	for gen, n := range records[1:] {
		if n != 1 {
			t.Errorf("%d records of generation %d", n, gen+1)
		}
	}
	if got := f.unit("short").LastGen; got != wanted {
		t.Errorf("the last generation is %d, %d were started", got, wanted)
	}
	t.Logf("promise N4: %d short runs, %d records, %d wrong", wanted, wanted, wrong)
}

// ask asks for a verb and does not wait for what becomes of it.
func (f *fixture) ask(verb, unit string) {
	f.t.Helper()
	if _, err := verbs[verb](f.s, f.t.Context(), errand{unit: unit}); err != nil {
		f.t.Fatalf("%s %s: %v", verb, unit, err)
	}
}
