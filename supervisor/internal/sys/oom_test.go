package sys

import (
	"fmt"
	"strings"
	"testing"
)

func init() {
	// Says its scores: of whoever was started with 500 and may go down to 300, again and
	// again, and of who may not go down at all.
	roles["spared"] = func() int {
		if SetScore("500") != nil {
			return 1
		}
		keeperScore, supervisorScore = -1001, 400 // no number that the kernel takes
		refused := SpareKeeper()
		kept, _ := score()
		SpareSupervisor()
		still, _ := score()
		keeperScore = 300
		services := SpareKeeper()
		keeper, _ := score()
		again := SpareKeeper()
		SpareSupervisor()
		supervisor, _ := score()
		fmt.Printf("%q %d %d; %q %d %q %d", refused, kept, still, services, keeper, again, supervisor)
		return 0
	}
}

func TestScoresOfKeeperAndSupervisor(t *testing.T) {
	if now, ok := score(); !ok || now > 300 {
		t.Skipf("the score for the OOM killer is %d, %v", now, ok)
	}
	o := ways[0].run(t, newPipe(t), rolePlayer("spared"))
	if want := `"" 500 500; "500" 300 "0" 400`; o.failure != nil || o.output != want {
		t.Errorf("%v %+v\n%s, want\n%s", o.failure, o.status, o.output, want)
	}
}

// A child has the score that it was given, in both ways, and its parent, whose memory it
// shares in one of them, keeps its own.
func TestScoreOfAChild(t *testing.T) {
	before, ok := score()
	if !ok {
		t.Skip("there is no score for the OOM killer")
	}
	for _, w := range ways {
		if w.name == "direct" && Direct() != nil {
			continue
		}
		s := spec("cat", "/proc/self/oom_score_adj")
		s.Score = "999"
		o := w.run(t, newPipe(t), s)
		if o.failure != nil || o.status != (Status{}) || strings.TrimSpace(o.output) != "999" {
			t.Errorf("%s: %v %+v %q", w.name, o.failure, o.status, o.output)
		}
		if now, _ := score(); now != before {
			t.Errorf("%s: its parent has %d, and had %d", w.name, now, before)
		}
	}
}
