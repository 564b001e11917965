// Prefork is one of several web server processes that accept from the same socket.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/sockd/sockd/activation"
)

func main() {
	log.SetFlags(0)
	n, of := activation.Instance()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "instance %d of %d, process %d\n", n, of, os.Getpid())
	})
	srv := &http.Server{Addr: "127.0.0.1:8081", Handler: handler}
	if err := activation.Serve(context.Background(), srv, "http"); err != nil {
		log.Fatal("prefork: ", err)
	}
}
