// Fd-client asks the broker for a listening descriptor and serves HTTP on it. It has
// bound no port, and it needs no right to.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	log.SetFlags(0)
	path := "examples/fd-passing/broker.sock"
	if len(os.Args) > 1 {
		path = os.Args[1]
	}
	if err := serve(path); err != nil {
		log.Fatal("fd-client: ", err)
	}
}

func serve(path string) error {
	f, err := ask(path)
	if err != nil {
		return err
	}
	l, err := net.FileListener(f)
	f.Close() // l has a duplicate
	if err != nil {
		return err
	}
	fmt.Println("serving", f.Name(), "on", l.Addr())
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from a client of the broker, process %d\n", os.Getpid())
	})}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	drained := make(chan error, 1)
	context.AfterFunc(ctx, func() { drained <- srv.Shutdown(context.Background()) })
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-drained
}

// ask receives one descriptor; its name comes as data beside it.
func ask(path string) (*os.File, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	name, control := make([]byte, 255), make([]byte, unix.CmsgSpace(4))
	n, nc, _, _, err := conn.ReadMsgUnix(name, control) // sets close-on-exec
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:nc])
	if err != nil {
		return nil, err
	}
	if len(messages) != 1 {
		return nil, fmt.Errorf("the broker at %s sent no descriptor", path)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("the broker at %s sent %d descriptors: %v", path, len(fds), err)
	}
	return os.NewFile(uintptr(fds[0]), string(name[:n])), nil
}
