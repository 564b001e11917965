// Udp-by-address answers every datagram with the name of the service and the address
// that the datagram was sent to, and sends the answer from that address.
package main

import (
	"bytes"
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
	name := "alone"
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	if err := serve(name); err != nil {
		log.Fatal("udp-by-address: ", err)
	}
}

func serve(name string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	pc, err := activation.ListenPacket(ctx, "datagrams", "udp4", "0.0.0.0:8085")
	if err != nil {
		return err
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		return fmt.Errorf("socket datagrams is %s, not UDP", pc.LocalAddr().Network())
	}
	if err := tellDestination(conn); err != nil {
		return err
	}
	// Told to leave: answer the datagram in hand, read no other. Those that wait stay
	// in the socket, for the next run.
	context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	if err := activation.Ready(); err != nil {
		return err
	}
	data, control := make([]byte, 1500), make([]byte, 128)
	for {
		n, nc, _, from, err := conn.ReadMsgUDP(data, control)
		if err != nil && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		to, err := destination(control[:nc])
		if err != nil {
			return err
		}
		answer := fmt.Sprintf("%s: %q was sent to %s\n", name, bytes.TrimSpace(data[:n]), net.IP(to[:]))
		// A socket bound to 0.0.0.0 has many addresses: answer from the one that was
		// asked, or the client will not know the answer.
		source := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: to})
		if _, _, err := conn.WriteMsgUDP([]byte(answer), source, from); err != nil {
			log.Print("udp-by-address: ", err) // this client's problem, not ours
		}
	}
}

// tellDestination has the kernel say with each datagram where it was sent to.
func tellDestination(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("IP_PKTINFO", failed)
}

// destination finds the address in a datagram's control messages (ip(7), in_pktinfo:
// interface index, local address, destination).
func destination(control []byte) (to [4]byte, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return to, err
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12 {
			return [4]byte(m.Data[8:12]), nil
		}
	}
	return to, fmt.Errorf("a datagram without its destination")
}
