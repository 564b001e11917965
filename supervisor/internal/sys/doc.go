// Package sys touches Linux: it binds and watches sockets, starts programs, directly or
// through the trampoline, waits for them and ends whole process trees.
//
// It holds no state of a unit and decides nothing: no restart, no timeout, no
// policy. The one thing to know before calling it: descriptors are plain numbers
// and stay out of Go's poller wherever somebody else shares them, because
// O_NONBLOCK belongs to the open file description and not to us.
package sys
