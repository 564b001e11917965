// Package steer decides which socket of a reuseport group a new connection or
// datagram goes to. It opens no socket, starts no goroutine and knows no unit: the
// caller names places by number and says what share each is to have.
//
// A group is the sockets that one address was bound to with SO_REUSEPORT. A place is
// a socket's number in it, from 0, and keeps it whatever the kernel's own order
// becomes. Three levels do the work, best first ([Probe] says which are there):
//
//   - [EBPF]: a program with a table of shares. A place with weight 0 gets nothing
//     new, Flush moves what waits to live places with no help from a sysctl, and
//     connections are counted. Needs CAP_BPF and Linux 5.14.
//   - [ClassicBPF]: the same table as a program without state. No privilege. Flush
//     works only where net.ipv4.tcp_migrate_req is 1, else it says [ErrNoMigration].
//   - [Hash]: the kernel's own choice among all sockets. Set steers nobody, and says
//     so with [ErrUnsteered]: the caller holds.
//
// The one thing to know: membership is the group's to change. Between Open and Close
// nobody else may shut down, listen on, bind or close its sockets, because with
// ClassicBPF the kernel's order must be known exactly (kernel: reuseport_detach_sock
// moves the last member into the hole). Where it happened all the same, say so with
// Join.
package steer
