package supervisor

import (
	"errors"
	"fmt"

	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
)

// socketsOptions are the options for bind of each of a unit's sockets, by name.
func socketsOptions(conf *units.Unit) (map[string]*sys.Options, error) {
	all := make(map[string]*sys.Options, len(conf.Sockets))
	for i := range conf.Sockets {
		k := &conf.Sockets[i]
		o, err := socketOptions(k)
		if err != nil {
			return nil, fmt.Errorf("unit %s: socket %s: %w", conf.Name, k.Name, err)
		}
		all[k.Name] = &o
	}
	return all, nil
}

// setOptions notes for a unit's sockets what its file says of them now.
func (s *Supervisor) setOptions(u *unit) {
	options, err := socketsOptions(u.conf)
	if err != nil {
		s.log.Warn("socket options", "unit", u.conf.Name, "err", err)
	}
	for _, k := range u.sockets {
		if k.options = options[k.name]; k.options == nil {
			k.options = &sys.Options{}
		}
	}
}

// socketOptions turns a unit file's socket into options for bind, with users and
// groups looked up.
func socketOptions(k *units.Socket) (sys.Options, error) {
	o := sys.Options{
		ReusePort: k.ReusePort || k.PerInstance, ReuseAddr: k.ReuseAddr, NonBlocking: k.NonBlocking, Backlog: k.Backlog,
		IPv6Only: k.IPv6Only, FreeBind: k.FreeBind, Transparent: k.Transparent, BindToDevice: k.BindToDevice,
		Mark: k.Mark, Priority: k.Priority, ReceiveBuffer: k.ReceiveBuffer, SendBuffer: k.SendBuffer,
		KeepAlive: k.KeepAlive, NoDelay: k.NoDelay, DeferAccept: k.DeferAccept, FastOpen: k.FastOpen,
		IPTOS: k.IPTOS, IPTTL: k.IPTTL, Mode: k.Mode, DirectoryMode: k.DirectoryMode,
		UID: -1, GID: -1, Optional: k.Optional,
	}
	if k.User != "" {
		a, err := sys.LookupUser(k.User)
		if err != nil && !errors.Is(err, sys.ErrNoEntry) {
			return o, fmt.Errorf("user: %w", err)
		}
		o.UID = int(a.UID)
	}
	if k.Group != "" {
		gid, err := sys.LookupGroup(k.Group)
		if err != nil {
			return o, fmt.Errorf("group: %w", err)
		}
		o.GID = int(gid)
	}
	return o, nil
}
