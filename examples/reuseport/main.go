// Reuseport answers each connection with who it is. It is the member of the group that
// sockd started; reuseport-join is one that sockd knows nothing of.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/sockd/sockd/activation"
)

func main() {
	log.SetFlags(0)
	if err := serve(); err != nil {
		log.Fatal("reuseport: ", err)
	}
}

func serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	l, err := activation.Listen(ctx, "line", "tcp", "127.0.0.1:8084")
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	if err := activation.Ready(); err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil && err != nil {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(conn, "inside: process %d\n", os.Getpid())
		conn.Close()
	}
}
