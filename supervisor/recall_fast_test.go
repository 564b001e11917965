package supervisor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor/internal/plain"
	"github.com/sockd/sockd/units"
)

// What is saved is read without encoding/json, which takes several times as long, and
// says the same: of an idle unit, and of one that has run.
func TestSavedUnitsAreReadFast(t *testing.T) {
	f := newFixture(t, "idle", onPath, "up", `
[service]
role = serve
ready = "notify"
start = "boot"
restart = "always"
restart_delay = "0s"
instances = 2
[socket.http]
listen = "tcp://127.0.0.1:0"
per_instance = true
backlog = 7
keep_alive = true
`)
	f.awaitState("up", 1, "ready")
	f.do("restart", "up", Done)
	f.crash()
	inv, err := f.keeper.Inventory()
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for name, state := range inv.States {
		var got, want any
		unit, isConf := strings.CutPrefix(name, confState)
		switch {
		case unit != "up" && unit != "idle":
			continue
		case isConf:
			got, want = new(units.Unit), new(units.Unit)
		default:
			got, want = new(savedUnit), new(savedUnit)
		}
		if err := json.Unmarshal(state, want); err != nil {
			t.Fatal(err)
		}
		if !plain.Read(state, got) || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: not read as it is: %s", name, state)
		}
		if saved, ok := got.(*savedUnit); ok {
			var sockets, wanted []savedSocket
			if err := json.Unmarshal(saved.Sockets, &wanted); err != nil {
				t.Fatal(err)
			}
			if !plain.Read(saved.Sockets, &sockets) || !reflect.DeepEqual(sockets, wanted) || len(sockets) == 0 {
				t.Errorf("%s: not read as they are: %s", name, saved.Sockets)
			}
		}
		read++
	}
	if read != 4 {
		t.Errorf("%d of 4 states", read)
	}
	f.start()
}

// BenchmarkRecall reads what is saved of an idle unit, as it is read and by encoding/json,
// in turn.
func BenchmarkRecall(b *testing.B) {
	dir := b.TempDir()
	path := filepath.Join(dir, "web.toml")
	if err := os.WriteFile(path, []byte("[service]\nexec = [\"/bin/true\", \"-v\"]\n[socket.http]\nlisten = \"tcp://127.0.0.1:8080\"\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	set, err := units.Load(path)
	if err != nil {
		b.Fatal(err)
	}
	u := newUnit(set.Units[0])
	sockets, err := json.Marshal([]savedSocket{{Held: "listen/web/http", Name: "http", Network: "tcp", Address: "127.0.0.1:8080", Real: "127.0.0.1:8080"}})
	if err != nil {
		b.Fatal(err)
	}
	for _, saved := range []struct {
		name  string
		value any
	}{{"configuration", u.conf}, {"state", &savedUnit{Version: stateVersion, Machine: u.machine, Sockets: sockets}}} {
		b.Run(saved.name, func(b *testing.B) {
			text, err := json.Marshal(saved.value)
			if err != nil {
				b.Fatal(err)
			}
			var ours, theirs time.Duration
			for b.Loop() {
				for _, way := range []struct {
					read  func([]byte, any) error
					spent *time.Duration
				}{{plain.Unmarshal, &ours}, {json.Unmarshal, &theirs}} {
					into := reflect.New(reflect.TypeOf(saved.value).Elem()).Interface()
					began := time.Now()
					if err := way.read(text, into); err != nil {
						b.Fatal(err)
					}
					*way.spent += time.Since(began)
				}
			}
			b.ReportMetric(float64(theirs)/float64(ours), "times-as-fast")
		})
	}
}
