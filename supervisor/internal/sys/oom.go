package sys

import (
	"os"
	"strconv"
	"strings"

	"github.com/sockd/sockd/supervisor/internal/sys/trampoline"
)

// What the OOM killer takes a process for is the memory it has and this, in thousandths of
// what there is (proc_pid_oom_score_adj(5)). A keeper is small, and with it all sockets
// would go; a supervisor can be replaced, but not as often as something else runs wild.
var keeperScore, supervisorScore = -950, -500 // a test that may not lower them that far has others

// SpareKeeper has the OOM killer take others before this process, and returns the score
// that services are to have, which is ours until now; "" if they are to have ours, because
// it stays as it is: lowering it takes CAP_SYS_RESOURCE.
func SpareKeeper() (services string) {
	now, ok := score()
	switch {
	case !ok || now < keeperScore:
		return ""
	case now == keeperScore: // of an image of ours that ended on the way to this one
		return "0"
	case SetScore(strconv.Itoa(keeperScore)) != nil:
		return ""
	}
	return strconv.Itoa(now)
}

// SpareSupervisor is for the child of a keeper that has been spared: after services, and
// before the keeper.
func SpareSupervisor() {
	if now, ok := score(); ok && now == keeperScore {
		SetScore(strconv.Itoa(supervisorScore))
	}
}

// SetScore sets the score of this process.
func SetScore(text string) error { return os.WriteFile(trampoline.ScoreFile, []byte(text), 0) }

func score() (now int, ok bool) {
	text, err := os.ReadFile(trampoline.ScoreFile)
	if err != nil {
		return 0, false
	}
	now, err = strconv.Atoi(strings.TrimSpace(string(text)))
	return now, err == nil
}
