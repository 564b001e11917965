package supervisor

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func init() {
	// Sends each word of TEST_SAY as a message (~ is a space, ; a new line), waits for
	// SIGTERM if the last was not "end", and floods first with TEST_FLOOD messages.
	roles["say"] = func() {
		for n := range number("TEST_FLOOD") {
			notify(fmt.Sprintf("STATUS=flood %d", n))
		}
		for word := range strings.SplitSeq(os.Getenv("TEST_SAY"), ",") {
			if word == "end" {
				os.Exit(number("TEST_CODE"))
			}
			notify(strings.NewReplacer("~", " ", ";", "\n", "SELF", fmt.Sprint(os.Getpid()), "BIG", strings.Repeat("x", 1<<17)).Replace(word))
		}
		waitTERM()
	}
}

func sayUnit(more string) string {
	return "[service]\nready = \"notify\"\nstart = \"boot\"\n" + more + "\n"
}

func TestWhatARunSays(t *testing.T) {
	f := newFixture(t, "web", sayUnit("role = say TEST_SAY=STATUS=warming~up;ERRNO=2,STATUS=BIG,MAINPID=1,MAINPID=SELF,READY=1;STATUS=serving"))
	f.awaitState("web", 1, "ready")
	f.until("the last words", func() bool {
		r := f.unit("web").Instances[0].Runs
		return len(r) == 1 && r[0].Status == "serving" && r[0].Errno == 2
	})
	for _, want := range []string{"longer than", "process 1 cannot be a main process"} {
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}

func TestLastWordsCount(t *testing.T) {
	const rounds = 20
	for range rounds {
		f := newFixture(t, "web", sayUnit("restart = \"no\"\nrole = say TEST_SAY=READY=1;STATUS=done,end"))
		f.until("its end", func() bool { return f.unit("web").State == "ended" })
		f.awaitState("web", 1, "ready") // else it would have failed: gone before it was ready
		f.stop()
	}
}

func TestWatchdogKillsAndRestarts(t *testing.T) {
	f := newFixture(t, "web", sayUnit("watchdog = \"100ms\"\nrestart_delay = \"10ms\"\nrole = say TEST_SAY=READY=1"))
	for range 2 {
		e := f.awaitState("web", 1, "exited") // Go's answer to SIGABRT is exit status 2
		if e.Exit.Code != 2 || e.Exit.Cause != "watchdog 100ms" {
			t.Fatalf("%+v", e.Exit)
		}
	}
	f.awaitState("web", 1, "ready")
	waitFor(t, "Go's words on SIGABRT", func() bool { return strings.Contains(f.out.String(), "SIGABRT: abort") })
}

func TestStartTimeout(t *testing.T) {
	f := newFixture(t, "more", sayUnit("start_timeout = \"2s\"\nrestart = \"always\"\nrestart_delay = \"1ms\"\nrole = say TEST_SAY=EXTEND_TIMEOUT_USEC=600000000;STATUS=asked"))
	var asked uint64 // the run that came to ask: on a slow machine not the first
	f.until("more time is asked for", func() bool {
		for _, r := range f.unit("more").Instances[0].Runs {
			if r.State == "starting" && r.Status == "asked" {
				asked = r.Gen
			}
		}
		return asked != 0
	})
	// The 2 s of another begin later, and are over later.
	f.write("web", sayUnit("start_timeout = \"2s\"\nrestart = \"no\"\nrole = say TEST_SAY=STATUS=slow"))
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := f.awaitState("web", 1, "exited"); e.Exit.Cause != "start timeout 2s" {
		t.Errorf("%+v", e.Exit)
	}
	f.until("failed", func() bool { return f.unit("web").State == "failed" })
	if st := f.unit("more"); st.State != "starting" || st.Instances[0].Runs[0].Gen != asked {
		t.Errorf("who asked for more time is %s", st.State)
	}
}

func TestRestartPolicies(t *testing.T) {
	for _, c := range []struct {
		restart string
		code    int
		again   bool
	}{{"no", 1, false}, {"on-failure", 1, true}, {"on-failure", 0, false}, {"on-success", 0, true}, {"on-success", 1, false},
		{"always", 0, true}, {"on-abnormal", 1, false}} {
		t.Run(fmt.Sprint(c.restart, " ", c.code), func(t *testing.T) {
			f := newFixture(t, "web", fmt.Sprintf("[service]\nrole = exit TEST_CODE=%d\nrestart = %q\nrestart_delay = \"10ms\"\n", c.code, c.restart))
			if c.again {
				for range 3 {
					f.awaitState("web", 1, "exited")
				}
				return
			}
			want := "ended"
			if c.code != 0 {
				want = "failed"
			}
			f.awaitState("web", 1, want)
			if st := f.unit("web"); st.Instances[0].Starts != 1 {
				t.Errorf("%d starts", st.Instances[0].Starts)
			}
		})
	}
}

// N9: a service that talks without end delays nobody.
func TestFloodOfMessagesDoesNotDelayControl(t *testing.T) {
	const flood = 100_000
	f := newFixture(t, "web", sayUnit(fmt.Sprintf("role = say TEST_FLOOD=%d TEST_SAY=READY=1\nstart_timeout = \"0s\"", flood)))
	client := NewClient(filepath.Join(f.dir, "run"))
	asked := 0
	var slowest time.Duration
	for f.unit("web").State != "ready" {
		began := time.Now()
		if status, text := f.curl("GET", "/healthz", nil); status != 200 {
			t.Fatalf("%d %s", status, text)
		}
		if _, err := client.Unit(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(began))
		asked++
	}
	if slowest > patience || asked < 10 {
		t.Errorf("%d times asked, the slowest answer after %v", asked, slowest)
	}
	t.Logf("promise N9: %d messages of one service, %d questions meanwhile, the slowest answered after %v", flood, asked, slowest.Round(10*time.Microsecond))
}

func TestMessagesOfAnotherUserAreRefused(t *testing.T) {
	needOtherUser(t)
	f := newFixture(t, "web", sayUnit("role = say TEST_SAY=STATUS=waiting"))
	pid := f.awaitState("web", 1, "starting").Pid
	f.until("it runs", func() bool { r := f.unit("web").Instances[0].Runs; pid = r[0].Pid; return r[0].Status == "waiting" })
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(env), "NOTIFY_SOCKET=")
	address, _, _ := strings.Cut(rest, "\x00")
	exe := filepath.Join(f.dir, "spoof")
	self, _ := os.Executable()
	if out, err := exec.Command("cp", self, exe).CombinedOutput(); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	for dir := f.dir; strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) { // ours, and no folder above
		os.Chmod(dir, 0o755)
	}
	cmd := exec.Command(exe)
	cmd.Dir = "/"
	cmd.Env = []string{"TEST_ROLE=say", "TEST_SAY=READY=1,end", "NOTIFY_SOCKET=" + address}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	c, err := net.Dial("unixgram", address) // in order: when this is seen, the other has been
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "STATUS=after")
	f.until("the next message", func() bool { return f.unit("web").Instances[0].Runs[0].Status == "after" })
	if st := f.unit("web"); st.State != "starting" || !strings.Contains(f.log.String(), "it came from another user") {
		t.Errorf("it is %s", st.State)
	}
}
