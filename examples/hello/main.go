// Hello is a web server that sockd starts at the first request. It runs by itself
// as well, and under systemd.
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
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from process %d\n", os.Getpid())
	})
	srv := &http.Server{Addr: "127.0.0.1:8080", Handler: handler}
	log.Print("hello: serving")
	if err := activation.Serve(context.Background(), srv, "http"); err != nil {
		log.Fatal("hello: ", err)
	}
	log.Print("hello: served every request; leaving")
}
