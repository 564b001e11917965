package keeper

import (
	"reflect"
	"slices"
	"testing"
)

// Every field of what a keeper is made of is either handed over when it executes
// another file, or known to be nothing that could be lost. Who adds one decides.
func TestHandoverKnowsEveryField(t *testing.T) {
	for _, c := range []struct {
		of            any
		over, nothing []string
	}{
		{Local{}, []string{"Ledger", "cgroup", "journal", "runs"},
			[]string{"forgetful", "log", "out", "orphans", "sweeper", "slots", "spare", "left", "gate", "store", "mu", "wg", "score"}}, // score: see expose
		{Ledger{}, []string{"held", "states", "runs"}, // queue: made again of what is pending
			[]string{"mu", "closed", "queue", "moving", "more", "done", "events"}},
		{run{}, []string{"id", "mark", "foreign", "main", "leaf", "formers", "killed"},
			[]string{"l", "mu", "early", "ending", "buried", "gone", "others"}},
		{journal{}, []string{"live", "lastGen"}, // dir: held
			[]string{"log", "mu", "dir", "file", "size", "compact", "said"}},
		{guard{}, []string{"Duty", "local", "outcome", "waiting", "ending"},
			[]string{"signals", "hints", "trial", "told", "early", "failed", "reason", "safe", "least"}}, // safe: such a one does not serve
		{session{}, []string{"wire", "hello"},
			[]string{"local", "log", "outer", "writing", "bye", "again", "acked", "ended", "handed", "serving", "over",
				"busy", "ordered", "sent", "refused", "names"}}, // nothing is on its way then
	} {
		typ := reflect.TypeOf(c.of)
		for i := range typ.NumField() {
			if name := typ.Field(i).Name; !slices.Contains(c.over, name) && !slices.Contains(c.nothing, name) {
				t.Errorf("%s.%s is new: is it handed over (reexec.go), or nothing that could be lost?", typ, name)
			}
		}
	}
}
