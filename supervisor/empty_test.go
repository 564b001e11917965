package supervisor

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
)

// looking says whether somebody looks at queues every millisecond.
func looking() bool {
	stacks := make([]byte, 1<<20)
	return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), ").seenEmpty(")
}

// N10: a queue is looked at only as long as somebody waits for it to become empty, and
// not until the stop timeout would have ended that.
func TestNobodyLooksAtQueuesForNothing(t *testing.T) {
	for name, c := range map[string]struct {
		level, more string
		change      func(f *fixture) error
	}{
		"a replacement": {"", "overlap = false", func(f *fixture) error {
			_, err := verbs["restart"](f.s, t.Context(), errand{unit: "web"})
			return err
		}},
		"an instance one too many": {"hash", "", func(f *fixture) error {
			_, err := f.s.scaleUnit(t.Context(), errand{unit: "web"}, 1)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.level == "hash" {
				needDeaf(t) // else it does not retire, and leaves at once
			}
			t.Setenv(levelVariable, c.level)
			f := newFixture(t, "web", fmt.Sprintf(siblings, "", 2, c.more+"\nstop_timeout = \"1h\""))
			f.do("start", "web", Done)
			address := f.address("web", "http")
			pids := []int{f.unit("web").Instances[0].Runs[0].Pid, f.unit("web").Instances[1].Runs[0].Pid}
			for _, pid := range pids {
				suspend(t, pid)
			}
			for _, k := range f.unit("web").Sockets {
				for queued := 0; queued == 0; queued = f.unit("web").Sockets[k.Instance-1].Queued {
					c, err := net.Dial("tcp", address)
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
				}
			}
			if err := c.change(f); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "somebody looks", looking)
			if _, err := verbs["pause"](f.s, t.Context(), errand{unit: "web"}); err != nil { // no replacement, and no start
				t.Fatal(err)
			}
			for _, pid := range pids {
				kill(t, pid)
			}
			waitFor(t, "nobody looks", func() bool { return !looking() })
		})
	}
}
