package supervisor

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"golang.org/x/sys/unix"
)

// Under a manager that has a descriptor store for us, systemd or another sockd, held
// sockets are put there too, so that even the death of the keeper keeps them. They
// come back as LISTEN_FDS under the names they were held by (sd_notify(3), FDSTORE).

// heldSocket begins the names of sockets that are worth it.
const heldSocket = "listen/"

// maxStoredName is what a name in a store may have, in bytes (sd_notify(3), FDNAME).
const maxStoredName = 255

// outerStore tells the outer manager's store what is held: fd, or -1 when it is no
// more. Nil: there is no store for us.
func outerStore(log *slog.Logger) func(name string, fd int) {
	address := os.Getenv("NOTIFY_SOCKET")
	room, err := strconv.Atoi(os.Getenv("FDSTORE"))
	if err != nil || room <= 0 || address == "" {
		return nil
	}
	return func(name string, fd int) {
		if !strings.HasPrefix(name, heldSocket) || len(name) > maxStoredName {
			return
		}
		text, rights := "FDSTOREREMOVE=1\nFDNAME="+name, []byte(nil)
		if fd >= 0 {
			text, rights = "FDSTORE=1\nFDPOLL=0\nFDNAME="+name, unix.UnixRights(fd)
		}
		if err := tellStore(address, text, rights); err != nil {
			log.Warn("outer manager not told", "socket", name, "err", err)
		}
	}
}

// tellStore sends one datagram.
func tellStore(address, text string, rights []byte) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendmsg(fd, []byte(text), rights, &unix.SockaddrUnix{Name: address}, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
}

// storedSockets are sockets that came back from an outer store: those of which it is
// on record what they are go where they were; the others are passed sockets like any
// other, known by their address.
func (s *Supervisor) storedSockets(inv keeper.Inventory, o *orphans) {
	ours := savedSockets(inv) // of a start that was cut short, on this keeper
	for name, fd := range inv.Descriptors {
		rest, ok := strings.CutPrefix(name, heldSocket)
		unit, _, _ := strings.Cut(rest, "/")
		switch {
		case !ok:
			continue
		case o != nil && o.sockets.knows(unit, name):
			o.fds[name] = fd
			continue
		case ours[name]:
			continue
		}
		if dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err == nil {
			s.passed = append(s.passed, dup)
		}
		s.keeper.Release(name)
	}
}

// savedSockets are the names that units which were saved hold their sockets under.
func savedSockets(inv keeper.Inventory) map[string]bool {
	all := map[string]bool{}
	for name, state := range inv.States {
		var saved savedUnit
		var sockets []savedSocket
		if strings.Contains(name, "/") || json.Unmarshal(state, &saved) != nil || json.Unmarshal(saved.Sockets, &sockets) != nil {
			continue
		}
		for _, k := range sockets {
			all[k.Held] = true
		}
	}
	return all
}

// passedName is what a socket that an outer manager gave to the keeper is held under.
func passedName(i int, name string) string {
	if strings.HasPrefix(name, heldSocket) {
		return name
	}
	return fmt.Sprintf("%s%d", passedHeld, i)
}
