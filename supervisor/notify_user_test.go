package supervisor

import (
	"fmt"
	"os"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
)

// A run's word counts as that of the user it was started as, whatever the unit file
// says by now, and whichever supervisor hears it.
func TestUserIsThatOfTheStart(t *testing.T) {
	const other = 54321
	f := newFixture(t, "web", "[service]\nrole = serve\nready = \"notify\"\nstart = \"boot\"\n[socket.http]\nlisten = \"tcp://127.0.0.1:0\"\n")
	f.do("start", "web", Done)
	run := func() (r *run) {
		if err := f.s.ask(t.Context(), func() error { r = f.s.units["web"].runs[1]; return nil }); err != nil || r == nil {
			t.Fatal(r, err)
		}
		return r
	}
	if r := run(); r.user != os.Getuid() || r.mayNotify(sys.Message{UID: other}) {
		t.Errorf("started as %d, %d may speak for it", r.user, other)
	}
	err := f.s.ask(t.Context(), func() error {
		u := f.s.units["web"]
		u.runs[1].user = other // as if the file had said so
		return f.s.save(u)
	})
	if err != nil {
		t.Fatal(err)
	}
	f.crash()
	f.start()
	if r := run(); !r.mayNotify(sys.Message{UID: other}) || r.mayNotify(sys.Message{UID: other + 1}) {
		t.Errorf("after a crash it is known as %d, want %d", r.user, other)
	}
}

// Who may not change users is told whom the file wants, who we are, and what to do.
func TestRefusedUserIsNamed(t *testing.T) {
	refused := keeper.Event{Kind: keeper.SpawnFailed, Stage: "user", Err: "supplementary groups: operation not permitted"}
	us := fmt.Sprintf("sockd runs as uid %d and cannot start a process as ", os.Getuid())
	for _, c := range []struct {
		keys string
		ev   keeper.Event
		want string
	}{
		{"user = \"root\"\n", refused, us + "root (uid 7): supplementary groups: operation not permitted (run sockd as root, or leave service.user and service.group out)"},
		{"group = \"root\"\n", refused, us + "uid 7, group root: supplementary groups: operation not permitted (run sockd as root, or leave service.user and service.group out)"},
		{"user = \"root\"\n", keeper.Event{Stage: "exec", Err: "no such file"}, "no such file"},
	} {
		conf, err := units.Parse("/web.toml", []byte("[service]\nexec = \"true\"\n"+c.keys))
		if err != nil {
			t.Fatal(err)
		}
		if got := newUnit(conf).explain(c.ev, 7); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
