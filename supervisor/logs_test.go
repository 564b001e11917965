package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// difficult is what a service might write: no line, a long one, a longer one, NUL,
// no UTF-8, characters across the cuts, and no newline at the end.
func difficult(instance string) []byte {
	var b bytes.Buffer
	b.WriteString("\n")
	b.WriteString(strings.Repeat("x", MaxLine) + "\n")
	b.WriteString(strings.Repeat("y", MaxLine+1) + "\n")
	b.WriteString("a" + strings.Repeat("€", 1<<20/3) + "\n")
	b.WriteString("nul \x00 bell \a <html>&\n")
	for n := 0; b.Len() < 2<<20; n++ {
		fmt.Fprintf(&b, "%s line %d\n", instance, n)
	}
	b.WriteString("the last words of " + instance)
	return b.Bytes()
}

func init() {
	// Writes much and ends at once.
	roles["difficult"] = func() {
		os.Stdout.Write(difficult(os.Getenv("SOCKD_INSTANCE")))
	}
	// Writes TEST_LINES lines and ends.
	roles["lines"] = func() {
		for n := range number("TEST_LINES") {
			fmt.Println("line", n)
		}
	}
}

// N6: every byte once, in order, attributed.
func TestEveryByteOfTheLog(t *testing.T) {
	for _, format := range []Format{Text, JSON} {
		t.Run(string(format), func(t *testing.T) {
			runs := 8
			if testing.Short() { // half a million lines take long with the race detector
				runs = 2
			}
			f := prepare(t, "web", fmt.Sprintf("[service]\nrole = difficult\ninstances = %d\nrestart = \"no\"\n", runs))
			f.format = format
			f.start()
			for range runs {
				f.await("an end", func(e Event) bool { return e.What == "exited" })
			}
			f.stop()
			got := map[string][]byte{}
			lines := strings.SplitAfter(f.out.String(), "\n")
			f.out.Reset()
			for _, line := range lines {
				if line == "" {
					continue
				}
				if format == JSON {
					var l jsonLine
					if err := json.Unmarshal([]byte(line), &l); err != nil {
						t.Fatalf("%.100q: %v", line, err)
					}
					name := fmt.Sprint(l.Instance)
					got[name] = append(got[name], l.Line...)
					if !l.Partial {
						got[name] = append(got[name], '\n')
					}
					continue
				}
				name, text, ok := strings.Cut(line, " | ")
				if !ok || !strings.HasPrefix(name, "web@") {
					t.Fatalf("not attributed: %.100q", line)
				}
				// Text does not say where a long line was cut: every piece ends a line.
				got[name[4:]] = append(got[name[4:]], text...)
			}
			total := 0
			for i := 1; i <= runs; i++ {
				name := fmt.Sprint(i)
				want := append(difficult(name), '\n')
				total += len(want)
				have := got[name]
				if format == Text { // compared without line ends: those were added
					want, have = bytes.ReplaceAll(want, []byte("\n"), nil), bytes.ReplaceAll(have, []byte("\n"), nil)
				}
				if !bytes.Equal(want, have) {
					at := 0
					for at < min(len(want), len(have)) && want[at] == have[at] {
						at++
					}
					t.Errorf("instance %d: %d bytes, want %d; they differ from byte %d on: %.40q, want %.40q", i, len(have), len(want), at, have[at:], want[at:])
				}
			}
			t.Logf("promise N6: %d bytes of %d runs at once in %s, 0 lost", total, runs, format)
		})
	}
}

func TestBytesThatAreNoTextAreWrittenAsTheyAre(t *testing.T) {
	out := &bytes.Buffer{}
	w := &lineWriter{out: out, format: Text, now: time.Now}
	s := splitter{src: source{"web", 1, 1}}
	s.feed(w, []byte("\xff\xfe\x00 ok\n\xc3"))
	s.finish(w)
	if want := "web@1 | \xff\xfe\x00 ok\nweb@1 | \xc3\n"; out.String() != want {
		t.Errorf("%q, want %q", out, want)
	}
	out.Reset()
	w.format = JSON
	s.feed(w, []byte("\xff ok\n"))
	if !strings.Contains(out.String(), "\"line\":\"\uFFFD ok\"") {
		t.Errorf("%s", out)
	}
}

// N9: an output that nobody reads stops the services that write, and nothing else.
func TestBlockedOutputDoesNotBlockTheSupervisor(t *testing.T) {
	k, err := keeper.NewLocal(keeper.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	f := &fixture{t: t, dir: t.TempDir(), keeper: k, out: &lockedBuffer{}, log: &lockedBuffer{}}
	f.write("loud", "[service]\nrole = lines TEST_LINES=200000\nstop_timeout = \"200ms\"\n")
	f.write("web", onDemand)
	set, err := f.load()
	if err != nil {
		t.Fatal(err)
	}
	unread, output := io.Pipe()
	s := New(Config{Units: set, Output: output, RuntimeDir: filepath.Join(f.dir, "run"), keeper: k,
		Log: slog.New(slog.NewTextHandler(f.log, nil))})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	<-s.started
	f.s = s
	if _, err := unread.Read(make([]byte, 1)); err != nil { // it writes, and that was all that is read
		t.Fatal(err)
	}
	client := NewClient(filepath.Join(f.dir, "run"))
	var slowest time.Duration
	for range 100 {
		began := time.Now()
		if _, err := client.Units(t.Context()); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(began))
	}
	if _, err := ask("tcp", f.address("web", "http")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatalf("not ended\n%s", f.log)
	}
	took := time.Since(began)
	if !strings.Contains(f.log.String(), "output not written") || !strings.Contains(f.log.String(), "runs=2") {
		t.Errorf("nothing is said of the output that was not written:\n%s", f.log)
	}
	unread.Close() // lets the writer go
	t.Logf("promise N9: output blocked, 100 answers, slowest %v; ended %v after being told", slowest.Round(time.Microsecond), took.Round(time.Millisecond))
}
