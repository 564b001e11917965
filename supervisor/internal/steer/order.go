package steer

import "slices"

// An order is the sockets of a group as the kernel numbers them, which is what a
// classic program answers with: as they began to listen, or were bound. When one
// leaves, the last moves into the hole (reuseport_detach_sock and
// reuseport_stop_listen_sock in net/core/sock_reuseport.c).
type order []int

func (o *order) leave(fd int) {
	i := slices.Index(*o, fd)
	if i < 0 {
		return
	}
	last := len(*o) - 1
	(*o)[i] = (*o)[last]
	*o = (*o)[:last]
}

func (o *order) join(fd int) { *o = append(*o, fd) }

// index is -1 if fd is no member.
func (o order) index(fd int) int { return slices.Index(o, fd) }

// last is the member that moves when another leaves; -1 if there is none.
func (o order) last() int {
	if len(o) == 0 {
		return -1
	}
	return o[len(o)-1]
}
