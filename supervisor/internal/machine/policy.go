package machine

import "time"

// An ending is how a run ended, as the restart policy sees it.
type ending int

const (
	clean    ending = iota // exit status 0, or a signal that means "please leave"
	code                   // another exit status, or it could not be started
	signal                 // killed by any other signal
	timeout                // TimedOut
	watchdog               // Silent
	protocol               // ended well, but before the READY=1 it had promised
)

// Linux numbers, the same on amd64 and arm64.
const (
	sighup  = 1
	sigint  = 2
	sigkill = 9
	sigpipe = 13
	sigterm = 15
)

// endingOf judges a run by our verdict on it first, and only then by its status.
// Clean signals: systemd.service(5), SuccessExitStatus=.
func endingOf(run Run, st Status, notify bool) ending {
	polite := st.Signal == sighup || st.Signal == sigint || st.Signal == sigterm || st.Signal == sigpipe
	switch {
	case run.Fault == TimedOut:
		return timeout
	case run.Fault == Silent:
		return watchdog
	case st.Signal != 0 && !polite:
		return signal
	case st.Signal == 0 && st.Code != 0:
		return code
	case notify && run.ReadyAt == 0:
		return protocol
	}
	return clean
}

// follows reports whether such an ending is followed by another start: the table
// of Restart= in systemd.service(5), where protocol counts as systemd's code has it.
func (r Restart) follows(how ending) bool {
	switch r {
	case Always:
		return true
	case OnSuccess:
		return how == clean
	case OnFailure:
		return how != clean
	case OnAbnormal:
		return how != clean && how != code
	case OnAbort:
		return how == signal
	case OnWatchdog:
		return how == watchdog
	}
	return false
}

// minDelay keeps a service that fails at once from spinning where Delay is 0: only
// the first failure of one that has been ready for at least as long is followed by a
// start without delay.
const minDelay = 10 * time.Millisecond

// delay is how long to wait before the next start after so many failures in a row:
// Delay, doubled for each failure after the first, up to DelayMax, then spread by ten per
// cent either way (jitter in [0,1)) so that services which failed together do not
// come back together.
func (s *Spec) delay(fails int, jitter float64) time.Duration {
	d := s.Delay
	if fails > 1 {
		d = max(s.Delay, minDelay)
	}
	for ; fails > 1 && d < s.DelayMax; fails-- {
		d = min(2*d, s.DelayMax)
	}
	return d + time.Duration(float64(d)*(jitter-0.5)/5)
}
