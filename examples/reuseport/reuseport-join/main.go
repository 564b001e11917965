// Reuseport-join joins the group of a port by itself: plain Go, nothing of sockd. All
// it needs is SO_REUSEPORT before bind, and to run as the same user as the others.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	log.SetFlags(0)
	address := "127.0.0.1:8084"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	config := net.ListenConfig{Control: reusePort}
	l, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		log.Fatal("reuseport-join: ", err)
	}
	fmt.Println("joined", l.Addr())
	for {
		conn, err := l.Accept()
		if err != nil {
			log.Fatal("reuseport-join: ", err)
		}
		fmt.Fprintf(conn, "outside: process %d\n", os.Getpid())
		conn.Close()
	}
}

// reusePort is called between socket and bind.
func reusePort(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	if err != nil {
		return err
	}
	return failed
}
