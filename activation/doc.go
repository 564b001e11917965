// Package activation is for services written in Go: it takes the sockets that a
// supervisor passed to this process (sockd, systemd, systemd-socket-activate),
// tells the supervisor how the service is doing, and gives it descriptors to keep
// for the process that comes after this one (Store, Stored).
//
// Serve also answers where a readiness gate of sockd asks whether this very process
// serves; Listeners("ready") is for programs that answer by themselves.
//
// It needs nothing of sockd and starts nothing by itself. It never guesses: a wrong
// variable, a name that was not passed or a descriptor of another kind is an error,
// and only a process that was given no sockets gets ErrNotActivated.
//
// The one thing to know before calling it: what it has read, it removes. The first
// call about sockets unsets LISTEN_PID, LISTEN_PIDFDID, LISTEN_FDS and LISTEN_FDNAMES
// and marks the descriptors close-on-exec; the first notification unsets
// NOTIFY_SOCKET; Watchdog unsets WATCHDOG_USEC and WATCHDOG_PID. Programs that the
// service starts inherit none of it. All functions may be called from any goroutine.
//
// A socket may be shared with other processes, and so is its O_NONBLOCK flag, which
// Go's net package switches on. Processes that expect the socket to block must not
// share it with a Go program.
//
// It needs Linux, to build and to run.
package activation
