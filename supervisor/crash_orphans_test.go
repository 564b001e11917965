package supervisor

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// The supervisor that takes up what a killed keeper has left, or ends it, dies while it
// does so: the next one goes on, and there is never a second copy.
func TestCrashWhileOrphansAreTaken(t *testing.T) {
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	if *points > 2 {
		rounds = 60
	}
	for _, how := range []string{Adopt, End} {
		for i := range rounds {
			skip := 1 + rand.IntN(40)
			if rounds == 60 {
				skip = i + 1
			}
			crashOverOrphans(t, how, skip)
		}
		t.Logf("promise N5: %d supervisors died over what a killed keeper had left (%s), there was one copy of each service", rounds, how)
	}
}

func crashOverOrphans(t *testing.T, how string, skip int) {
	first := growTree(t)
	first.awaitControl()
	first.served()
	first.ready("web", "work")
	want := bornIn(first.dir)
	first.cmd.Process.Kill()
	first.cmd.Wait() // until its supervisor has noticed
	tr := plantTree(t, first.dir, fmt.Sprint("TEST_SKIP=", skip), "TEST_ORPHANS="+how)
	tr.awaitControl()
	tr.served()
	tr.ready("web", "work")
	now := bornIn(tr.dir)
	if how == End {
		want["web.2"], want["work.2"] = now["web.2"], now["work.2"]
	}
	if !maps.Equal(now, want) {
		t.Errorf("processes %v, want %v", now, want)
	}
	tr.stop(now) // each has its record, also who was ended
	if text := tr.log.String(); strings.Contains(text, "is not heard") || strings.Contains(text, "output is lost") || strings.Contains(text, `"level":"ERROR"`) {
		t.Error("something went wrong")
	}
	if t.Failed() {
		t.Fatalf("%s: after it had died at visit %d of any point: %v\n%s", how, skip, deathsIn(filepath.Join(tr.dir, "deaths")), tr.log.String())
	}
}

// Who ends while there is no keeper has one record too, and so has who is ended; also
// where the start that makes it fails.
func TestOrphansThatEndUnseen(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long, and the race detector sees nothing new in it: without -short")
	}
	for _, how := range []string{Adopt, End} {
		tr := growTree(t)
		tr.awaitControl()
		tr.served()
		tr.ready("web", "work")
		tr.cmd.Process.Kill()
		tr.cmd.Wait()
		before := bornIn(tr.dir)
		pid := before["work.1"]
		p, err := sys.Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		p.Signal(syscall.SIGKILL)
		p.WaitDead()
		p.Close()
		bad := filepath.Join(tr.dir, "bad.toml")
		writeFile(t, bad, "[socket.x]\nlisten = \"unix:///dev/null/x\"\n")
		failed := plantTree(t, tr.dir, "TEST_ORPHANS="+how)
		failed.killed[pid] = true
		if err := failed.cmd.Wait(); err == nil {
			t.Fatal("it began")
		}
		if how == Adopt {
			delete(before, "web.1") // it goes on
		}
		exits := failed.exits()
		for id := range before {
			if len(exits[id]) != 1 {
				t.Errorf("%s: %d exit records of %s: %v", how, len(exits[id]), id, exits[id])
			}
		}
		os.Remove(bad)
		tr = plantTree(t, tr.dir, "TEST_ORPHANS="+how)
		tr.awaitControl()
		tr.served()
		tr.ready("web", "work")
		now := bornIn(tr.dir)
		for id := range before {
			delete(now, id)
		}
		tr.stop(now)
		exits = tr.exits()
		for id := range before {
			if len(exits[id]) != 0 {
				t.Errorf("%s: %s ends once more: %v", how, id, exits[id])
			}
		}
		t.Logf("promise N4: a keeper was killed (%s), %d processes ended before the next had them; each has one record", how, len(before))
	}
}

// ready waits until units are.
func (tr *tree) ready(units ...string) {
	tr.t.Helper()
	for _, name := range units {
		waitFor(tr.t, name, func() bool {
			st, err := tr.client.Unit(tr.t.Context(), name)
			return err == nil && st.State == "ready"
		})
	}
}

// What was wished of a unit holds when the keeper is killed too, also for a unit of which
// nothing lives.
func TestWishesOutliveTheKeeper(t *testing.T) {
	tr := growTree(t)
	tr.awaitControl()
	tr.served()
	tr.ready("web", "work")
	tr.verb("work", "stop", Done)
	tr.insist("scale", func(ctx context.Context) error { _, err := tr.client.Scale(ctx, "web", 2, true, patience); return err })
	tr.verb("web", "pause", Done)
	born := bornIn(tr.dir)
	again := func() {
		t.Helper()
		tr.cmd.Process.Kill()
		tr.cmd.Wait()
		tr = plantTree(t, tr.dir)
		tr.awaitControl()
	}
	for range 2 { // the second has it from the first
		again()
		if st, err := tr.status("work"); err != nil || st.Up || st.State != "stopped" {
			t.Errorf("work was stopped, and is %+v, %v", st, err)
		}
		if st, err := tr.status("web"); err != nil || st.State != "paused" || len(st.Instances) != 2 {
			t.Errorf("web was paused with 2 instances, and is %+v, %v", st, err)
		}
	}
	if now := bornIn(tr.dir); !maps.Equal(now, born) {
		t.Errorf("processes were %v and are %v", born, now)
	}
	tr.verb("web", "resume", Done)
	tr.verb("work", "start", Done)
	again()
	tr.ready("web", "work")
	born = bornIn(tr.dir)
	if _, ok := born["work.2"]; !ok || len(born) != 3 {
		t.Errorf("processes %v, of which work should have one more", born)
	}
	tr.stop(map[string]int{"work.2": born["work.2"]})
	t.Logf("promise N7: keeper killed 3 times: a unit stopped, one paused and one scaled stayed so")
}

// A start that fails, for a bad file or for a socket that cannot be had, leaves all that a
// killed keeper has left, and what was wished, to the next.
func TestFailedStartLeavesOrphans(t *testing.T) {
	tr := growTree(t)
	tr.awaitControl()
	tr.served()
	tr.ready("web", "work")
	born := bornIn(tr.dir)
	kill := func() {
		tr.cmd.Process.Kill()
		tr.cmd.Wait()
	}
	fail := func() {
		t.Helper()
		for _, text := range []string{"[nonsense]\n", "[socket.x]\nlisten = \"unix:///dev/null/x\"\n"} {
			bad := filepath.Join(tr.dir, "bad.toml")
			writeFile(t, bad, text)
			if err := plantTree(t, tr.dir).cmd.Wait(); err == nil {
				t.Fatal("it began")
			}
			if err := os.Remove(bad); err != nil {
				t.Fatal(err)
			}
		}
		tr = plantTree(t, tr.dir)
		tr.awaitControl()
	}
	kill()
	fail()
	tr.ready("web", "work")
	if now := bornIn(tr.dir); !maps.Equal(now, born) {
		t.Errorf("processes were %v and are %v", born, now)
	}
	tr.verb("web", "stop", Done)
	tr.verb("work", "stop", Done)
	kill() // and nothing lives
	fail()
	if st, err := tr.status("work"); err != nil || st.State != "stopped" {
		t.Errorf("work was stopped, and is %+v, %v", st, err)
	}
	tr.stop(nil)
}
