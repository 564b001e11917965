package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

const flows = 400

// A stream is one UDP flow: a connected socket.
type stream struct {
	conn net.Conn
	at   string // the instance that answered last
}

// A way to run four processes that answer datagrams, and to replace them all.
type way struct {
	name    string
	address string
	replace func() error
	late    time.Duration // when an answer will not come any more
}

// themselves is processes that bind by themselves, replaced one by one, the new one first.
func themselves(t *testing.T) way {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := pc.LocalAddr().String()
	pc.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	crew := newCrew(t, 4, nil, []string{"TEST_BALANCE=udp", "TEST_BALANCE_ADDRESS=" + address}, exe)
	return way{"binding for themselves", address, func() error {
		for i := range crew.members {
			if err := crew.relieve(i); err != nil {
				return err
			}
		}
		return nil
	}, 300 * time.Millisecond}
}

// Point 5: 400 UDP flows over five rolling replacements: how many come to another
// instance than before.
func TestBalanceFlows(t *testing.T) {
	var ways []way
	for _, level := range []string{"", "classic-bpf", "hash"} {
		if level != "" && testing.Short() && !*balanceFull {
			continue
		}
		b := (&balanced{Name: "web", Level: level, Go: true, Role: "udp", Instances: 4}).up(t)
		name := b.level()
		if level != "" && level == ways[0].name {
			continue
		}
		ways = append(ways, way{name, b.address, b.restart, noAnswer})
	}
	if raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err == nil && ways[0].name == "ebpf" {
		unix.Close(raw) // what a process has not read when it leaves can be brought to the next one
		b := (&balanced{Name: "web", Go: true, Role: "udp", Instances: 4, Options: `flows = "sticky"`}).up(t)
		ways = append(ways, way{"ebpf, sticky", b.address, b.restart, noAnswer})
	}
	if os.Getuid() == 0 && (*balanceFull || !testing.Short()) {
		b := (&balanced{Name: "web", Go: true, Role: "udp", Instances: 4, World: world{UID: nobody}}).up(t)
		ways = append(ways, way{"ordinary user, " + b.level(), b.address, b.restart, noAnswer})
	}
	if *balanceFull {
		ways = append(ways, themselves(t))
	}

	var out strings.Builder
	tw := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "\tflows\treplacements\tdatagrams\tunanswered\tflows moved, at least once\t")
	replacements, failed := either(1, 5), false
	for _, w := range ways {
		var all []*stream
		for range flows {
			c, err := net.Dial("udp4", w.address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			all = append(all, &stream{conn: c})
		}
		sent, lost := 0, 0
		moved := map[*stream]bool{}
		ask := func() {
			for i, s := range all {
				was := s.at
				ok := s.ask(fmt.Sprint(sent), w.late)
				if sent++; !ok {
					lost++
				}
				if was != "" && s.at != was {
					moved[all[i]] = true
				}
			}
		}
		ask()
		for range replacements {
			done := make(chan error, 1)
			go func() { done <- w.replace() }()
			for over := false; !over; {
				ask()
				select {
				case err := <-done:
					if err != nil {
						t.Fatal(err)
					}
					over = true
				default:
				}
			}
			ask()
		}
		fmt.Fprintf(tw, "%s\t%d\t%d × 4\t%d\t%d\t%d\t\n", w.name, flows, replacements, sent, lost, len(moved))
		if w.name == "binding for themselves" {
			continue
		}
		if len(moved) > 0 || lost > 0 {
			failed = true
		}
		t.Logf("promise N3: %s: %d datagrams of %d flows over %d rolling replacements of 4 siblings, %d unanswered, %d flows moved", w.name, sent, flows, replacements, lost, len(moved))
	}
	tw.Flush()
	t.Log("\n" + out.String())
	if failed {
		t.Error("a held socket has lost a datagram or a flow")
	}
}

// ask sends a datagram and waits for its answer: what was sent, the instance, the pid.
func (s *stream) ask(id string, late time.Duration) bool {
	s.conn.SetDeadline(time.Now().Add(late))
	if _, err := s.conn.Write([]byte(id)); err != nil {
		return false // refused: nobody is bound at the moment
	}
	var buf [64]byte
	for {
		n, err := s.conn.Read(buf[:])
		if err != nil {
			return false
		}
		if f := strings.Fields(string(buf[:n])); len(f) == 3 && f[0] == id {
			s.at = f[1]
			return true
		}
	}
}
