package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Who waits for an instance that is down is served by its next process before the instance
// leaves, where nothing can move him to another.
func TestScaleDownOfAnInstanceThatIsDown(t *testing.T) {
	for _, level := range []string{"hash", "off"} {
		t.Run(level, func(t *testing.T) {
			t.Setenv(levelVariable, level)
			f := prepare(t)
			gate := filepath.Join(f.dir, "gate")
			if err := unix.Mkfifo(gate, 0o600); err != nil {
				t.Fatal(err)
			}
			pipe, err := os.OpenFile(gate, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer pipe.Close()
			f.write("web", "[service]\nrole = told TEST_FILE="+gate+"\nready = \"notify\"\nstart = \"boot\"\ninstances = 2\nstart_timeout = \"0s\"\nrestart_delay = \"1s\"\n"+
				"[socket.http]\nlisten = \"tcp://127.0.0.1:0\"\nper_instance = true\n")
			f.start()
			pipe.WriteString("yy")
			f.until("both are ready", func() bool { return f.unit("web").State == "ready" })
			kill(t, f.unit("web").Instances[1].Runs[0].Pid)
			f.until("it is down", func() bool { // in backoff, as a rule
				state := f.unit("web").Instances[1].State
				return state == "backoff" || state == "starting"
			})
			clients := f.crowd(1, 5)
			done := make(chan error, 1)
			go func() {
				out, err := f.s.scaleUnit(t.Context(), errand{unit: "web", wait: true}, 1)
				if err == nil && (out.Outcome != Done || out.Because != "") {
					err = fmt.Errorf("%+v", out)
				}
				done <- err
			}()
			pipe.WriteString("y")
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			wantServed(t, clients)
			t.Logf("promise N2: an instance that was down leaves, steering %s: %d who waited, 0 lost", level, len(clients))
		})
	}
}

// Where policy starts it no more, they are closed with it, and who asked for that hears how
// many.
func TestScaleDownSaysWhoWasClosed(t *testing.T) {
	for _, level := range []string{"hash", "off"} {
		t.Run(level, func(t *testing.T) {
			t.Setenv(levelVariable, level)
			if level == "hash" && probe().Migration {
				t.Skip("queues can be moved here: net.ipv4.tcp_migrate_req is 1")
			}
			f := newFixture(t, "web", fmt.Sprintf(siblings, "", 2, `restart = "no"`))
			f.do("start", "web", Done)
			kill(t, f.unit("web").Instances[1].Runs[0].Pid)
			f.awaitState("web", 2, "exited")
			clients := f.crowd(1, 5)
			out, err := f.s.scaleUnit(t.Context(), errand{unit: "web", wait: true}, 1)
			if err != nil || out.Outcome != Done {
				t.Fatalf("%+v, %v", out, err)
			}
			closed := 0
			for _, c := range clients {
				c.SetDeadline(time.Now().Add(patience))
				switch _, err := c.Read(make([]byte, 1)); {
				case errors.Is(err, os.ErrDeadlineExceeded):
					t.Fatal("somebody waits for ever")
				case err != nil:
					closed++
				}
			}
			if want := fmt.Sprintf("%d connections were closed: ", closed); closed < 5 || !strings.HasPrefix(out.Because, want) {
				t.Errorf("%+v; %d were closed", out, closed)
			}
		})
	}
}
