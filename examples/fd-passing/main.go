// Fd-passing is a broker: over its Unix socket "control" it gives every client that
// asks the listening descriptor of its other socket (SCM_RIGHTS, unix(7)).
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/sockd/sockd/activation"
	"golang.org/x/sys/unix"
)

func main() {
	log.SetFlags(0)
	if err := serve(); err != nil {
		log.Fatal("fd-passing: ", err)
	}
}

func serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	controls, err := activation.Listeners("control")
	if err != nil {
		return err // without sockd there is nothing to hand out
	}
	files, err := activation.Files() // the rest: raw, we never accept from it
	if err != nil {
		return err
	}
	control, ok := controls[0].(*net.UnixListener)
	if !ok || len(files) != 1 {
		return errors.New("want one Unix socket called control, and one other")
	}
	context.AfterFunc(ctx, func() { control.Close() })
	if err := activation.Ready(); err != nil {
		return err
	}
	for {
		conn, err := control.AcceptUnix()
		if ctx.Err() != nil && err != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := give(conn, files[0]); err != nil {
			log.Print("fd-passing: ", err)
		}
		conn.Close()
	}
}

// give sends the descriptor, with its name as the data that must go with it.
func give(conn *net.UnixConn, f *os.File) error {
	rights := unix.UnixRights(int(f.Fd()))
	if _, _, err := conn.WriteMsgUnix([]byte(f.Name()), rights, nil); err != nil {
		return err
	}
	fmt.Println("gave", f.Name(), "to a client")
	return nil
}
