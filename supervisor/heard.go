package supervisor

import (
	"fmt"
	"slices"
	"time"
)

// A client whose connection breaks off, because the supervisor has died or was replaced
// meanwhile, asks the next one again, with the same request. What was heard is saved with
// the unit, in the same moment as what it has brought about. So a request that is heard
// twice is carried out once, and its outcome is judged by what was there when it was
// heard first.

// An errand is what somebody wants of a unit.
type errand struct {
	unit string
	wait bool   // for the outcome
	id   string // the client's name for this request; "": it will not be repeated
	what string // the verb and what it was given, for people: scale instances=3
}

// A heard is an errand that was taken.
type heard struct {
	ID   string
	What string `json:",omitempty"` // "": a supervisor before us did not say
	At   time.Time
	Upto uint64 // the newest generation there was
}

const (
	// heardKept is how many errands of a unit are remembered: more than are likely to be
	// under way when a supervisor dies.
	heardKept = 16
	// maxErrandID bounds what a client may have us save.
	maxErrandID = 64
)

// recallErrand is the errand as it was taken before, if it was. What another one has been
// called is no name for it: it would be answered and never carried out.
func (s *Supervisor) recallErrand(e errand) (h heard, again bool, err error) {
	if e.id == "" {
		return h, false, nil
	}
	for _, u := range s.units {
		i := slices.IndexFunc(u.heard, func(h heard) bool { return h.ID == e.id })
		if i < 0 {
			continue
		}
		h = u.heard[i]
		if u.conf.Name != e.unit || h.What != "" && h.What != e.what {
			return h, false, fmt.Errorf("request %q was `%s` of unit %s before; give this one another name", e.id, h.What, u.conf.Name)
		}
		return h, true, nil
	}
	return h, false, nil
}

// noteErrand remembers an errand; the unit is then to be saved.
func (u *unit) noteErrand(h heard) {
	if h.ID == "" {
		return
	}
	u.heard = append(u.heard[max(0, len(u.heard)-heardKept+1):], h)
}
