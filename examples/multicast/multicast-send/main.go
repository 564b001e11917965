// Multicast-send sends one datagram to a group on the loopback interface and prints
// the answers that come within a second.
package main

import (
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	log.SetFlags(0)
	group, text := "239.255.80.80:8086", "hello"
	if len(os.Args) > 1 {
		text = os.Args[1]
	}
	if len(os.Args) > 2 {
		group = os.Args[2]
	}
	if err := send(group, text); err != nil {
		log.Fatal("multicast-send: ", err)
	}
}

func send(group, text string) error {
	to, err := net.ResolveUDPAddr("udp4", group)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := throughLoopback(conn); err != nil {
		return err
	}
	if _, err := conn.WriteToUDP([]byte(text), to); err != nil {
		return err
	}
	conn.SetReadDeadline(time.Now().Add(time.Second))
	answer := make([]byte, 1500)
	for {
		n, _, err := conn.ReadFromUDP(answer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", answer[:n])
	}
}

// throughLoopback keeps what conn sends to groups on this machine.
func throughLoopback(conn *net.UDPConn) error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(lo.Index)})
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("IP_MULTICAST_IF", failed)
}
