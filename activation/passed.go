package activation

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A kind says which of our functions can hand a descriptor out.
type kind int

const (
	other    kind = iota // a file, a connection, a socket that does not listen: Files only
	listener             // a stream or seqpacket socket that listens
	packet               // a datagram socket
)

// A descriptor is one that was passed and who has it now.
type descriptor struct {
	file  *os.File // its name is the descriptor's
	kind  kind
	about string // for people: "tcp 127.0.0.1:80"
	taken bool
	gate  bool // the private socket of a readiness gate
	kept  bool // taken by Stored
}

func (d descriptor) String() string { return fmt.Sprintf("%s (%s)", d.file.Name(), d.about) }

// passed is everything that this process was given.
type passed struct {
	mu    sync.Mutex
	all   []descriptor // in descriptor order
	store bool         // somebody keeps descriptors for us, and some of these may be what was kept
	err   error        // why there is nothing
}

// inheritance is read once: the second reader would find no variables.
var inheritance = sync.OnceValue(func() *passed {
	env := consume(variables...)
	var id uint64
	if _, ok := env["LISTEN_PIDFDID"]; ok {
		id = ownPidfdID()
	}
	names, err := parse(env, os.Getpid(), id)
	if err != nil {
		return &passed{err: err}
	}
	return adopt(names)
})

// adopt looks at each descriptor from firstFD on and marks it close-on-exec. A
// descriptor that has the mark already did not come through exec: this process
// opened it, and LISTEN_FDS promised more than it was given. Then no os.File is made:
// the garbage collector would close its descriptor under a caller who takes it himself.
func adopt(names []string) *passed {
	for i := range names {
		fd := firstFD + i
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			why := "is not open"
			if err == nil {
				why = "is this process's own (taken before by other code?)"
			}
			return &passed{err: fmt.Errorf("activation: LISTEN_FDS says %d, but descriptor %d %s", len(names), fd, why)}
		}
		unix.CloseOnExec(fd)
	}
	p := &passed{}
	_, p.store = os.LookupEnv("FDSTORE")
	for i, name := range names {
		fd := firstFD + i
		kind, about := look(fd)
		p.all = append(p.all, descriptor{file: os.NewFile(uintptr(fd), name), kind: kind, about: about, gate: isGate(name, kind, about)})
	}
	return p
}

// look finds out what fd is.
func look(fd int) (kind, string) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return other, "not a socket"
	}
	family, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if family != unix.AF_INET && family != unix.AF_INET6 && family != unix.AF_UNIX {
		return other, fmt.Sprintf("a socket of address family %d, which package net has not", family)
	}
	listens, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	switch {
	case typ == unix.SOCK_DGRAM:
		return packet, describe(fd, "udp", "unixgram")
	case typ == unix.SOCK_SEQPACKET && listens != 0:
		return listener, describe(fd, "seqpacket", "unixpacket")
	case typ == unix.SOCK_STREAM && listens != 0:
		return listener, describe(fd, "tcp", "unix")
	case typ == unix.SOCK_STREAM || typ == unix.SOCK_SEQPACKET:
		return other, "a stream socket that does not listen"
	}
	return other, fmt.Sprintf("a socket of type %d", typ)
}

// describe names fd's network and address as a unit file would.
func describe(fd int, inet, local string) string {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return inet
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return inet + " " + netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrInet6:
		return inet + " " + netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrUnix:
		return local + " " + sa.Name
	}
	return inet
}

// take hands out the descriptors called name ("" is any) that are of the wanted
// kind and not taken yet: all, or the first most of them. use turns one into what
// the caller gets; if it fails for one, nothing is taken.
func take[T io.Closer](p *passed, name string, want kind, most int, use func(*os.File) (T, error)) ([]T, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	chosen, err := p.choose(name, want)
	if err != nil {
		return nil, err
	}
	var made []T
	for _, d := range chosen[:min(most, len(chosen))] {
		v, err := use(d.file)
		if err != nil {
			for _, v := range made {
				v.Close()
			}
			return nil, fmt.Errorf("activation: socket %v: %w", d, err)
		}
		made = append(made, v)
	}
	for _, d := range chosen[:len(made)] {
		d.taken = true
		d.file.Close() // package net has made its own duplicate
	}
	return made, nil
}

// choose returns the free descriptors of the wanted kind under name, at least one,
// or says why there is none.
func (p *passed) choose(name string, want kind) ([]*descriptor, error) {
	if p.err != nil {
		return nil, p.err
	}
	var free []*descriptor
	var wrong, taken []string
	for i := range p.all {
		switch d := &p.all[i]; {
		case name != "" && d.file.Name() != name, name == "" && (d.gate || d.kept):
		case d.kind == other && name == "": // a file is no socket of any name
		case d.kind == other:
			return nil, fmt.Errorf("activation: socket %v: use Files for it", d)
		case d.kind != want:
			wrong = append(wrong, d.String())
		case d.taken:
			taken = append(taken, d.String())
		default:
			free = append(free, d)
		}
	}
	switch {
	case len(free) > 0:
		return free, nil
	case len(taken) > 0:
		return nil, fmt.Errorf("activation: socket %s was handed out before", strings.Join(taken, ", "))
	case len(wrong) > 0 && want == listener:
		return nil, fmt.Errorf("activation: no listener, but %s: use PacketConns", strings.Join(wrong, ", "))
	case len(wrong) > 0:
		return nil, fmt.Errorf("activation: no datagram socket, but %s: use Listeners", strings.Join(wrong, ", "))
	}
	if p.noSockets() {
		return nil, ErrNotActivated
	}
	if name == "" {
		return nil, fmt.Errorf("activation: no socket was passed, but %v: use Files", p.all)
	}
	return nil, fmt.Errorf("activation: no socket is called %q: there is %s", name, strings.Join(p.names(), ", "))
}

// noSockets reports whether what was passed is none of the unit's sockets: only the
// gate's, and what a process before this one has stored. A program that listens by
// itself and stores its state is to do so at its second start too.
func (p *passed) noSockets() bool {
	return !slices.ContainsFunc(p.all, func(d descriptor) bool {
		return !d.gate && !d.kept && !(p.store && d.kind == other)
	})
}

func (p *passed) names() []string {
	var names []string
	for _, d := range p.all {
		names = append(names, d.file.Name())
	}
	return names
}

// errAllTaken is what Files says when nothing is left.
var errAllTaken = errors.New("activation: every descriptor was handed out before")
