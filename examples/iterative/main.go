// Iterative is a server of the simplest kind: it accepts a connection, works for 200
// milliseconds, answers, closes, and only then accepts the next. What makes it serve
// many at once is that there are many of it.
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
)

// work is how long one connection takes.
const work = 200 * time.Millisecond

func main() {
	log.SetFlags(0)
	if err := serve(); err != nil {
		log.Fatal("iterative: ", err)
	}
}

func serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	l, err := activation.Listen(ctx, "line", "tcp", "127.0.0.1:8082")
	if err != nil {
		return err
	}
	// Told to leave: no further connection. The one in hand is finished, and those
	// still queued stay with sockd for the next run.
	context.AfterFunc(ctx, func() { l.Close() })
	if err := activation.Ready(); err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil && err != nil {
			return activation.Stopping()
		}
		if err != nil {
			return err
		}
		answer(conn)
	}
}

// answer says who worked, and from when to when (milliseconds since 1970).
func answer(conn net.Conn) {
	defer conn.Close()
	n, of := activation.Instance()
	from := time.Now()
	to := <-time.After(work)
	fmt.Fprintf(conn, "%s instance %d of %d worked from %d to %d\n",
		label(), n, of, from.UnixMilli(), to.UnixMilli())
}

// label is the word that the unit file gives: which of the two units this is.
func label() string {
	if len(os.Args) > 1 {
		return os.Args[1]
	}
	return "alone"
}
