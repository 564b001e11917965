package supervisor

import (
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor/internal/machine"
)

// Of a run that was ready before it was adopted nobody knows how long that took.
func TestReadyBeforeItWasAdopted(t *testing.T) {
	f := newFixture(t, "web", "[service]\nrole = serve\nready = \"notify\"\nstart = \"boot\"\n[socket.http]\nlisten = \"tcp://127.0.0.1:0\"\n")
	if e := f.awaitState("web", 1, "ready"); e.After == "" {
		t.Error("it is not said how long an ordinary start took")
	}
	err := f.s.ask(t.Context(), func() error {
		u := f.s.units["web"]
		r := u.runs[1]
		r.asked, r.ready = time.Now().Add(time.Hour), time.Time{}
		f.s.report(u, machine.Report{Instance: 1, Gen: 1, From: machine.IsReady, To: machine.IsReady})
		f.s.tellAll()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if e := f.awaitState("web", 1, "ready"); e.After != "" {
		t.Errorf("ready after %s", e.After)
	}
}
