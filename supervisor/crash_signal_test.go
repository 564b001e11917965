package supervisor

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
)

func init() {
	// Counts how often it is told to leave, until SIGUSR1.
	roles["stays"] = func() {
		told := make(chan os.Signal, 8)
		signal.Notify(told, syscall.SIGTERM)
		enough := make(chan os.Signal, 1)
		signal.Notify(enough, syscall.SIGUSR1)
		notify("READY=1")
		<-told
		fmt.Println("told")
		<-enough
		fmt.Printf("told %d times\n", 1+len(told))
	}
}

// A service that was told to leave and has not left is not told again by the next
// supervisor: to some a second SIGTERM means to break off at once.
func TestSentStopSignalIsNotDoubled(t *testing.T) {
	f := newFixture(t, "web", "[service]\nrole = stays\nready = \"notify\"\nstart = \"boot\"\n")
	f.awaitState("web", 1, "ready")
	pid := f.unit("web").Instances[0].Runs[0].Pid
	if _, err := verbs["stop"](f.s, t.Context(), errand{unit: "web"}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it has been told", func() bool { return strings.Contains(f.out.String(), "told\n") })
	for range 2 {
		f.crash()
		f.start() // has done by then what it does about those who leave
	}
	if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	f.until("web to be stopped", func() bool { st, _ := f.s.Unit("web"); return st.State == "stopped" })
	waitFor(t, "its last words", func() bool { return strings.Contains(f.out.String(), "times\n") })
	if out := f.out.String(); !strings.Contains(out, "told 1 times") {
		t.Errorf("it said %q", out)
	}
}
