package machine

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite what the stories in testdata say")

// TestStories tells each story in testdata again. A story is a title, a line "spec …"
// and one line for each event: when, counted from the beginning, what was heard,
// and after the arrow what the unit wants done, with reports in brackets. "tick"
// without a time comes when the unit's deadline says; draws of jitter are in the middle.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	told := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var again []string
		for _, story := range strings.Split(strings.TrimSpace(string(text)), "\n\n") {
			told++
			title, _, _ := strings.Cut(story, "\n")
			again = append(again, story)
			t.Run(title, func(t *testing.T) {
				now := tell(t, story)
				again[len(again)-1] = now
				if now != story && !*update {
					t.Errorf("%s: it went otherwise (-update accepts it):\n%s\nwanted:\n%s", file, now, story)
				}
			})
		}
		if *update {
			if err := os.WriteFile(file, []byte(strings.Join(again, "\n\n")+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if told < 100 {
		t.Errorf("%d stories, at least 100 wanted", told)
	}
}

// birth is when every story begins: the clock has long been running.
const birth = Instant(time.Hour)

// tell returns the story with its right side as it happens now.
func tell(t *testing.T, story string) string {
	lines := strings.Split(story, "\n")
	var u *Unit
	now := birth
	for i, line := range lines[1:] {
		words := strings.Fields(line)
		if words[0] == "#" {
			continue
		}
		if words[0] == "spec" {
			up := words[len(words)-1] == "up" // before any event, as for a supervisor that has lost its state
			u = New(parseSpec(t, words[1:]))
			u.Up = up
			continue
		}
		left, _, _ := strings.Cut(line, "->")
		words = strings.Fields(left)
		if words[0] == "tick" {
			at, ok := u.Deadline()
			if !ok {
				t.Fatalf("tick: the unit waits for nothing: %s", line)
			}
			now = at
		} else {
			d, err := time.ParseDuration(strings.TrimPrefix(words[0], "+"))
			if err != nil || birth.Add(d) < now {
				t.Fatalf("not a later time: %s", line)
			}
			now, words = birth.Add(d), words[1:]
		}
		var actions []Action
		if words[0] == "recover" {
			u = reload(t, u)
			actions = u.Recover(now, parseHeld(t, words[1:]))
		} else {
			actions = u.Step(now, parseEvent(t, words))
		}
		lines[i+1] = strings.TrimRight(fmt.Sprintf("%-44s -> %s", strings.TrimRight(left, " "), saying(u, actions)), " ")
		if err := u.Check(); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if at, ok := u.Deadline(); ok && at <= now {
			t.Errorf("%s: its deadline is not in the future", line)
		}
	}
	return strings.Join(lines, "\n")
}

// reload is what a crash does to a unit.
func reload(t testing.TB, u *Unit) *Unit {
	text, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	v := new(Unit)
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatal(err)
	}
	return v
}

// saying writes actions as stories do.
func saying(u *Unit, actions []Action) string {
	var said []string
	for _, a := range actions {
		said = append(said, sayAction(a))
	}
	if u.EndedForGood() {
		said = append(said, "(all ended for good)")
	}
	return strings.Join(said, ", ")
}

func sayAction(a Action) string {
	place := func(n int) string {
		if n == 0 {
			return "shared"
		}
		return "web@" + strconv.Itoa(n)
	}
	switch a := a.(type) {
	case Watch:
		return "watch " + place(a.Instance)
	case Unwatch:
		return "unwatch " + place(a.Instance)
	case Spawn:
		return fmt.Sprintf("spawn %s gen=%d", place(a.Instance), a.Gen)
	case Terminate:
		verb := "terminate"
		if a.Abort {
			verb = "abort"
		}
		return fmt.Sprintf("%s %s gen=%d", verb, place(a.Instance), a.Gen)
	case Kill:
		return fmt.Sprintf("kill %s gen=%d", place(a.Instance), a.Gen)
	case Steer:
		return "steer " + strings.ReplaceAll(strings.Trim(fmt.Sprint(a.Weights), "[]"), " ", ":")
	case Flush:
		return "flush " + place(a.Instance)
	case AwaitEmpty:
		return "await empty " + place(a.Instance)
	case Report:
		text := fmt.Sprintf("[%s", place(a.Instance))
		if a.Gen > 0 {
			text += fmt.Sprintf(" gen=%d", a.Gen)
		}
		if a.From != a.To {
			text += fmt.Sprintf(" %s>%s", a.From, a.To)
		}
		if a.Because != "" {
			text += ": " + a.Because
		}
		if a.For != 0 {
			text += " for " + a.For.String()
		}
		return text + "]"
	}
	return fmt.Sprintf("unknown action %T", a)
}
