// Quic has the packet headers of QUIC (RFC 9000, section 17) and nothing else of it: no
// encryption, no streams. A connection is opened by a packet with a long header and gets
// an id that begins as sockd says; every further packet has a short header with that id,
// whatever address it comes from. The packet "bye" closes the connection.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sockd/sockd/activation"
)

const (
	long   = 0x80 // the first byte of a long header has it
	fixed  = 0x40 // the first byte of every packet has it
	idSize = 8    // of the ids that this server issues
)

// idle is how long a server that is to leave waits for a silent client.
const idle = 20 * time.Second

func main() {
	log.SetFlags(0)
	if err := serve(); err != nil {
		log.Fatal("quic: ", err)
	}
}

// A server has connections: how many packets have come on each, by id.
type server struct {
	open    map[[idSize]byte]int
	leaving bool
}

func serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	conn, err := activation.ListenPacket(ctx, "quic", "udp4", "127.0.0.1:8089")
	if err != nil {
		return err
	}
	if activation.ConnectionIDPrefix() == nil {
		log.Print("quic: nobody looks at connection ids here: a client whose address changes may come to another process")
	}
	context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	if err := activation.Ready(); err != nil {
		return err
	}
	s := server{open: map[[idSize]byte]int{}}
	packet := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(packet)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && s.leaving:
			return nil // those who still have a connection have been silent for long
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.leaving = true
		case err != nil:
			return err
		default:
			if answer := s.answer(packet[:n]); answer != nil {
				conn.WriteTo(answer, from)
			}
		}
		// Told to leave: new connections go to the successor, and sockd goes on sending
		// us the packets of those that we have. Where it does not look at ids, it cannot.
		if s.leaving && (len(s.open) == 0 || activation.ConnectionIDPrefix() == nil) {
			return nil
		}
		if s.leaving {
			conn.SetReadDeadline(time.Now().Add(idle))
		}
	}
}

// answer is what to send back for a packet; nil for one that is no packet.
func (s *server) answer(packet []byte) []byte {
	if len(packet) == 0 || packet[0]&fixed == 0 {
		return nil
	}
	if packet[0]&long != 0 {
		id := issue()
		s.open[id] = 1
		// Type Initial, version 1, the client's id (it has none), the server's.
		header := []byte{long | fixed, 0, 0, 0, 1, 0, idSize}
		return append(append(header, id[:]...), s.say(id)...)
	}
	if len(packet) < 1+idSize {
		return nil
	}
	id := [idSize]byte(packet[1:])
	if _, ours := s.open[id]; !ours {
		return fmt.Appendf([]byte{fixed}, "%s: no such connection", who())
	}
	s.open[id]++
	text := s.say(id)
	if string(packet[1+idSize:]) == "bye" {
		delete(s.open, id)
	}
	return append([]byte{fixed}, text...)
}

func (s *server) say(id [idSize]byte) string {
	text := fmt.Sprintf("%s: packet %d", who(), s.open[id])
	if s.leaving {
		text += ", leaving"
	}
	return text
}

// issue makes a connection id: the prefix says whose it is, the rest is random.
func issue() (id [idSize]byte) {
	prefix := activation.ConnectionIDPrefix()
	copy(id[:], prefix)
	rand.Read(id[len(prefix):])
	return id
}

func who() string {
	n, of := activation.Instance()
	return fmt.Sprintf("instance %d of %d, process %d", n, of, os.Getpid())
}
