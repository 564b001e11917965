// Multicast joins a group on the loopback interface, through the socket that it was
// passed, and answers each datagram to its sender.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sockd/sockd/activation"
	"golang.org/x/sys/unix"
)

func main() {
	log.SetFlags(0)
	if err := serve(); err != nil {
		log.Fatal("multicast: ", err)
	}
}

func serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	pc, err := activation.ListenPacket(ctx, "group", "udp4", "239.255.80.80:8086")
	if err != nil {
		return err
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		return fmt.Errorf("socket group is %s, not UDP", pc.LocalAddr().Network())
	}
	if err := join(conn); err != nil {
		return err
	}
	// Told to leave: answer the datagram in hand, read no other. Those that wait stay
	// in the socket, for the next run.
	context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	if err := activation.Ready(); err != nil {
		return err
	}
	n, of := activation.Instance()
	data := make([]byte, 1500)
	for {
		size, from, err := conn.ReadFromUDPAddrPort(data)
		if err != nil && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Printf("received %q\n", data[:size])
		if _, err := conn.WriteToUDPAddrPort(fmt.Appendf(nil, "instance %d of %d got %q", n, of, data[:size]), from); err != nil {
			log.Print("multicast: ", err) // this sender's problem, not ours
		}
	}
}

// join makes the socket a member of the group that it is bound to, on the loopback
// interface, and has it receive no group that only others have joined.
func join(conn *net.UDPConn) error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return err
	}
	group := conn.LocalAddr().(*net.UDPAddr).IP.To4()
	if group == nil || !group.IsMulticast() {
		return fmt.Errorf("socket group is bound to %s, which is no IPv4 multicast group", conn.LocalAddr())
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = os.NewSyscallError("IP_MULTICAST_ALL", unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0))
		if failed != nil {
			return
		}
		member := &unix.IPMreqn{Multiaddr: [4]byte(group), Ifindex: int32(lo.Index)}
		err := unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, member)
		if err != unix.EADDRINUSE { // an earlier run joined: sockd holds the socket and its memberships
			failed = os.NewSyscallError("IP_ADD_MEMBERSHIP", err)
		}
	})
	if err != nil {
		return err
	}
	return failed
}
