package supervisor

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	roles["told"] = func() {
		f, err := os.Open(os.Getenv("TEST_FILE"))
		if err != nil {
			panic(err)
		}
		var word [1]byte
		if _, err := f.Read(word[:]); err != nil || word[0] != 'y' {
			os.Exit(7)
		}
		serve()
	}
}

// A teller says to each process, in the order in which they ask, whether it becomes ready.
type teller struct {
	*fixture
	pipe *os.File
}

// newTeller starts a unit of two instances whose processes become ready when told.
func newTeller(t *testing.T) *teller {
	t.Helper()
	f := prepare(t)
	gate := filepath.Join(f.dir, "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(gate, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pipe.Close() })
	f.write("web", "[service]\nrole = told TEST_FILE="+gate+"\nready = \"notify\"\nstart = \"boot\"\ninstances = 2\nstart_timeout = \"0s\"\nrestart = \"no\"\n")
	f.start()
	tl := &teller{f, pipe}
	tl.tell("yy")
	f.until("both are ready", func() bool { return f.unit("web").State == "ready" })
	return tl
}

func (tl *teller) tell(words string) {
	tl.t.Helper()
	if _, err := tl.pipe.WriteString(words); err != nil {
		tl.t.Fatal(err)
	}
}

// asking asks for something over the control socket, and says what was answered.
func (tl *teller) asking(do func(c *Client) (Outcome, error)) (answer func(want string) Outcome) {
	type result struct {
		out Outcome
		err error
	}
	done := make(chan result, 1)
	c := NewClient(filepath.Join(tl.dir, "run"))
	go func() {
		out, err := do(c)
		done <- result{out, err}
	}()
	return func(want string) Outcome {
		tl.t.Helper()
		r := <-done // the client has a timeout
		if r.err != nil || r.out.Outcome != want {
			tl.t.Fatalf("%+v, %v; want %s", r.out, r.err, want)
		}
		return r.out
	}
}

func (tl *teller) generation(want uint64) {
	tl.t.Helper()
	if st := tl.unit("web"); st.LastGen != want {
		tl.t.Errorf("generation %d, want %d: %+v", st.LastGen, want, st)
	}
}

func (tl *teller) verb(verb string) (answer func(want string) Outcome) {
	return tl.asking(func(c *Client) (Outcome, error) { return c.Verb(tl.t.Context(), "web", verb, true, patience) })
}

// Contract, section 6: verbs wait for the outcome and say it, whichever supervisor knows it.
func TestVerbOutlivesTheSupervisor(t *testing.T) {
	tl := newTeller(t)
	again := func() { tl.t.Helper(); tl.crash(); tl.start() }

	answer := tl.verb("restart")
	tl.until("a successor", func() bool { return tl.unit("web").LastGen == 3 })
	again()
	tl.tell("y")
	tl.until("the second is replaced", func() bool { return tl.unit("web").LastGen == 4 })
	again()
	tl.tell("y")
	answer(Done)
	tl.generation(4)

	answer = tl.verb("restart") // which fails while nobody supervises
	tl.until("a successor", func() bool { return tl.unit("web").LastGen == 5 })
	tl.crash()
	tl.tell("n")
	waitFor(t, "its end", func() bool {
		inv, err := tl.keeper.Inventory()
		for _, c := range inv.Children {
			if c.ID.Gen == 5 && !c.Running {
				return true
			}
		}
		return err != nil
	})
	tl.start()
	if out := answer(RolledBack); !strings.Contains(out.Because, "exit status 7") {
		t.Errorf("because %q", out.Because)
	}
	again()
	tl.generation(5) // not tried again

	answer = tl.asking(func(c *Client) (Outcome, error) { return c.Scale(t.Context(), "web", 3, true, patience) })
	tl.until("a third", func() bool { return tl.unit("web").LastGen == 6 })
	again()
	tl.tell("y")
	answer(Done)
	tl.generation(6)

	answer = tl.asking(func(c *Client) (Outcome, error) { return c.Canary(t.Context(), "web", "1", true, patience) })
	tl.until("a canary", func() bool { return tl.unit("web").LastGen == 7 })
	again()
	tl.tell("y")
	if out := answer(Done); !strings.Contains(out.Because, "1 of 4 instances") {
		t.Errorf("because %q", out.Because)
	}
	answer = tl.verb("promote")
	tl.until("a promoted one", func() bool { return tl.unit("web").LastGen == 8 })
	again()
	tl.tell("yyy")
	answer(Done)
	tl.generation(10)

	tl.do("stop", "web", Done)
	answer = tl.verb("start")
	tl.until("a start", func() bool { return tl.unit("web").LastGen == 13 })
	again()
	tl.tell("nnn")
	if out := answer(Failed); !strings.Contains(out.Because, "exit status 7") {
		t.Errorf("because %q", out.Because)
	}
	t.Logf("promise N7: 6 verbs and 7 crashes while they were under way: each was carried out once, and its client heard the outcome")
}

// An errand that is heard twice brings about what it did the first time, and no more.
func TestErrandHeardTwice(t *testing.T) {
	tl := newTeller(t)
	ask := func(verb, id, want string) {
		t.Helper()
		out, err := verbs[verb](tl.s, t.Context(), errand{unit: "web", wait: true, id: id})
		if err != nil || out.Outcome != want {
			t.Errorf("%s: %+v, %v; want %s", verb, out, err, want)
		}
	}
	tl.tell("yy")
	ask("restart", "a", Done)
	ask("restart", "a", Done)
	tl.generation(4)
	tl.tell("yy")
	ask("restart", "b", Done)
	tl.generation(6)
	ask("stop", "c", Done)
	tl.tell("yy")
	ask("start", "d", Done)
	ask("stop", "c", Failed) // it was started meanwhile
	tl.generation(8)
	tl.tell("yyy")
	if out, err := tl.s.canaryUnit(t.Context(), errand{unit: "web", wait: true}, "1"); err != nil || out.Outcome != Done {
		t.Fatalf("%+v, %v", out, err)
	}
	ask("promote", "p", Done)
	tl.crash()
	tl.start()
	ask("promote", "p", Done) // as the canary before the crash has ended
	tl.generation(11)
	for range 2 * heardKept {
		ask("resume", "e", Done)
		ask("resume", "", Done)
	}
	tl.s.ask(t.Context(), func() error {
		if n := len(tl.s.units["web"].heard); n != 6 {
			t.Errorf("%d errands are remembered, not 6", n)
		}
		return nil
	})
}

// A name that was given to one request is not taken for another: that would be answered
// and never carried out.
func TestRequestNameOfAnotherErrandIsRefused(t *testing.T) {
	f := newFixture(t, "one", onDemand, "two", onDemand)
	c := NewClient(filepath.Join(f.dir, "run"))
	ask := func(what, wanted string) {
		t.Helper()
		var out Outcome
		err := c.send(t.Context(), "POST", "/v1/units/"+what, nil, &out)
		refused := &APIError{}
		switch {
		case wanted == "" && err != nil:
			t.Errorf("%s: %v", what, err)
		case wanted != "" && (!errors.As(err, &refused) || refused.Status != http.StatusConflict || !strings.Contains(refused.Text, wanted)):
			t.Errorf("%s: %+v, %v; want a conflict with %q", what, out, err, wanted)
		}
	}
	ask("one/scale?instances=2&request=a", "")
	ask("one/scale?instances=3&request=b", "")
	f.crash()
	f.start()
	ask("one/scale?instances=3&request=b&timeout=30s", "")
	ask("one/scale?instances=2&request=b", "`scale instances=3` of unit one")
	ask("one/stop?request=a", "`scale instances=2` of unit one")
	ask("two/stop?request=a", "of unit one")
	ask("one/restart?canary=1&request=c", "")
	ask("one/restart?request=c", "`restart canary=1`")
	if one, two := f.unit("one"), f.unit("two"); len(one.Instances) != 4 || !one.Up || !two.Up {
		t.Errorf("%+v, %+v: what was refused was done", one, two)
	}
}
