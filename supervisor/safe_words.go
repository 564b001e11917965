package supervisor

import (
	"reflect"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// hearWords begins to take out of a run's notify socket what calls for no decision: the
// queue of such a socket is short (net.unix.max_dgram_qlen), and a run that says again and
// again how it is would soon wait. What calls for one stays for the next supervisor, and
// so does what comes behind it.
func (s *Supervisor) hearWords(r *run, fd int) {
	r.notify, r.user = fd, r.unit.userOf(r.id.Gen)
	r.notified = s.newKey(target{unit: r.unit, run: r})
	s.watch.Arm(fd, r.notified)
}

// words takes out what runs have said.
func (s *Supervisor) words(keys []uint64) {
	for _, key := range keys {
		r := s.targets[key].run
		if r == nil || r.notify < 0 {
			continue
		}
		before := r.status
		if r.takeWords() {
			s.watch.Arm(r.notify, key)
		}
		if r.status != before {
			s.publishSafe(r.unit)
		}
	}
}

// takeWords reads up to where a decision is called for, and says whether all was read.
func (r *run) takeWords() bool {
	for {
		m, fds, err := sys.PeekNotify(r.notify)
		if err != nil {
			return true
		}
		sys.CloseAside(fds...)
		if !onlyWords(m.Fields) {
			return false
		}
		if m.Fields.Status != nil && r.mayNotify(m) {
			r.status = *m.Fields.Status
		}
		sys.ReadNotify(r.notify, false)
	}
}

// onlyWords tells whether a message says no more than how a run is and that it lives: the
// next supervisor waits for a whole interval of the watchdog in any case.
func onlyWords(n sys.Notification) bool {
	n.Watchdog, n.Status, n.Errno, n.Barrier, n.Problems = false, nil, nil, false, nil
	return reflect.DeepEqual(n, sys.Notification{FDPoll: n.FDPoll})
}
