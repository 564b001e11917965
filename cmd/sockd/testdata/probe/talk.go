package main

import (
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/sockd/sockd/activation"
)

// lastLines is how many lines talk writes when it leaves: more than a pipe holds.
const lastLines = 40

// talk writes a line of n bytes and more for each connection, says so to sockd, then answers with its
// pid, and writes many when it is told to leave.
func talk(n int) {
	files, err := activation.Files()
	if err != nil || len(files) != 1 {
		fmt.Fprintln(os.Stderr, "probe: one socket is needed:", err)
		os.Exit(1)
	}
	ln, err := net.FileListener(files[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
	said, much := make(chan int, 1), strings.Repeat("x", n)
	said <- 0
	say := func() {
		i := <-said
		fmt.Println("line", i, much)
		for activation.Notify("WATCHDOG=1", fmt.Sprintf("STATUS=%d lines", i+1)) != nil { // it waits while nobody hears it
		}
		said <- i + 1
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			say()
			fmt.Fprintf(c, "%d\n", os.Getpid())
			c.Close()
		}
	}()
	activation.Ready()
	wait()
	for range lastLines {
		say()
	}
}
