// Quic-client keeps 20 connections to the example server and sends every packet from
// another address, as a phone does that goes from one network to the next. It goes on
// until all the processes that it met first have been replaced.
package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"maps"
	"net"
	"os"
	"strings"
	"time"
)

const (
	connections = 20
	lifetime    = 50                    // packets of a connection; then it is closed, and another opened
	pause       = 10 * time.Millisecond // between two packets of a connection
	patience    = 30 * time.Second      // for an answer
)

func main() {
	log.SetFlags(0)
	address := "127.0.0.1:8089"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	if err := run(address); err != nil {
		log.Fatal("quic-client: ", err)
	}
}

// A client counts what came of its packets.
type client struct {
	address                          string
	opened, packets, leaving, astray int
	met                              map[string]bool // processes
}

// A connection is what a client knows of one.
type connection struct {
	id   []byte // by which the server wants to be called
	with string // the process that has it
	left int    // packets until it is closed
}

func run(address string) error {
	c := client{address: address, met: map[string]bool{}}
	var all [connections]*connection
	for i := range all {
		conn, err := c.open()
		if err != nil {
			return err
		}
		conn.left = 1 + lifetime*i/connections // they do not all end at once
		all[i] = conn
	}
	old := maps.Clone(c.met)
	fmt.Printf("%d connections with %d processes; waiting for those to be replaced\n", connections, len(old))
	next := time.NewTicker(pause)
	defer next.Stop()
	for among := true; among; <-next.C {
		among = false
		for i, conn := range all {
			var err error
			if conn.left--; conn.left > 0 {
				err = c.send(conn, "hello")
			} else if err = c.send(conn, "bye"); err == nil {
				all[i], err = c.open()
			}
			if err != nil {
				return err
			}
			among = among || old[all[i].with]
		}
	}
	for _, conn := range all {
		if err := c.send(conn, "bye"); err != nil {
			return err
		}
	}
	fmt.Printf("%d connections, %d packets, each from another address\n", c.opened, c.packets)
	fmt.Printf("%d processes; %d packets came to one that was leaving\n", len(c.met), c.leaving)
	fmt.Printf("%d packets came to another process than their connection\n", c.astray)
	if c.astray > 0 {
		return errors.New("connections are kept together only by eBPF; sockd doctor says whether it is to be had")
	}
	return nil
}

// open sends a first packet, for an id of the client's own choice.
func (c *client) open() (*connection, error) {
	packet := make([]byte, 15)
	rand.Read(packet[6:14])
	copy(packet, []byte{0xc0, 0, 0, 0, 1, 8}) // a long header: type Initial, version 1, an id of eight bytes, none of our own
	answer, err := c.ask(packet)
	if err != nil {
		return nil, err
	}
	if len(answer) < 7 || answer[0]&0x80 == 0 || len(answer) < 7+int(answer[6]) {
		return nil, fmt.Errorf("not the answer to a first packet: %q", answer)
	}
	c.opened++
	id, text := answer[7:7+answer[6]], answer[7+answer[6]:]
	return &connection{id: id, with: c.heard(text), left: lifetime}, nil
}

// send sends a packet of a connection, with a short header.
func (c *client) send(conn *connection, text string) error {
	answer, err := c.ask(append(append([]byte{0x40}, conn.id...), text...))
	if err != nil {
		return err
	}
	if c.heard(answer[1:]) != conn.with {
		c.astray++
	}
	return nil
}

// heard counts an answer and returns who gave it.
func (c *client) heard(text []byte) (who string) {
	who, rest, _ := strings.Cut(string(text), ":")
	c.met[who] = true
	if strings.HasSuffix(rest, "leaving") {
		c.leaving++
	}
	return who
}

// ask sends a packet from a socket of its own and waits for the answer.
func (c *client) ask(packet []byte) ([]byte, error) {
	conn, err := net.Dial("udp", c.address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(packet); err != nil {
		return nil, err
	}
	c.packets++
	answer := make([]byte, 1500)
	n, err := conn.Read(answer)
	if err == nil && n == 0 {
		err = errors.New("an empty answer")
	}
	return bytes.Clone(answer[:n]), err
}
