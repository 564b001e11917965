package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Point 7: beside other ways to replace a service: what each loses, and how long the
// slowest wait. Each replaces everything that it has every 400 ms; those that cannot be
// that quick, as often as they can.
func TestBalanceTools(t *testing.T) {
	c := &contest{t: t, rounds: either(1, 10)}
	count := either(500, 50000)
	const every = 400 * time.Millisecond
	start := fmt.Sprint(startUp.Milliseconds())

	b := (&balanced{Name: "sockd", Instances: 4}).up(t)
	level := b.level()
	quiet := c.add(b.quiet("sockd, "+level+", no restarts", count))
	c.add(b.planned("sockd, "+level, count))
	shared := (&balanced{Name: "shared", Instances: 4, Shared: true}).up(t)
	c.add(shared.planned("sockd, shared", count))
	held := c.entries[1:]

	socket, address := listening(t)
	prefork := newCrew(t, 4, socket, nil, inC(t), start)
	c.add(&entry{name: "prefork, as einhorn", count: count, volley: volley{Address: address, Rate: balanceRate}, every: every / 4,
		disturb: func(i int) (bool, error) { return true, prefork.relieve(i % 4) }})

	address = freePort(t)
	draining := newCrew(t, 4, nil, nil, inC(t), start, port(address), "drain")
	c.add(&entry{name: "SO_REUSEPORT, new one first, drained", count: count, volley: volley{Address: address, Rate: balanceRate}, every: every / 4,
		disturb: func(i int) (bool, error) { return true, draining.relieve(i % 4) }})

	address = freePort(t)
	alone := newCrew(t, 1, nil, nil, inC(t), start, port(address))
	c.add(&entry{name: "stop, then start, as systemd without a socket unit", count: count, volley: volley{Address: address, Rate: balanceRate}, every: every,
		disturb: func(int) (bool, error) { return true, alone.again(0, syscall.SIGTERM) }})

	if p := nginx(t); p != nil {
		c.add(p.reloaded("nginx reload", count, every))
	} else {
		t.Log("skipped: nginx is not installed")
	}
	if p := serverStarter(t); p != nil {
		c.add(p.reloaded("Server::Starter, one worker", count, 1200*time.Millisecond)) // it waits a second before the old one leaves
	} else {
		t.Log("skipped: Server::Starter (Debian: libserver-starter-perl) is not installed")
	}
	c.run()

	quiet.lossless(t, false)
	for _, e := range held {
		e.lossless(t, false)
	}
	var others []string
	for _, e := range c.entries[3:] {
		others = append(others, fmt.Sprintf("%s %d of %d, %s", e.name, e.tally.lost()+e.tally.InHand, e.tally.all(), ms(e.typical())))
	}
	ours := &held[0].tally
	t.Logf("promise N2: lost, and p99.9 of a slice in ms, beside others: sockd %d of %d, %s (%s without restarts); %s",
		ours.lost()+ours.InHand, ours.all(), ms(held[0].typical()), ms(quiet.typical()), strings.Join(others, "; "))
}

func (p *tool) reloaded(name string, count int, every time.Duration) *entry {
	return &entry{name: name, count: count, volley: volley{Address: p.address, Rate: balanceRate, Say: p.say}, every: every,
		disturb: func(int) (bool, error) { return true, p.reload() }}
}

// nobody is an ordinary user without a capability.
const nobody = 65534

// Point 8: the same as an ordinary user without any capability.
func TestBalanceUnprivileged(t *testing.T) {
	needRoot(t)
	inC(t)
	b := (&balanced{Name: "unprivileged", Instances: 4, World: world{UID: nobody}}).up(t)
	level := b.level()
	c := &contest{t: t, rounds: either(1, 10)}
	count := either(500, 50000)
	plan := c.add(b.planned(level+", replaced", count))
	kill := c.add(b.killed(level+", killed", count))
	c.run()
	plan.lossless(t, false)
	kill.lossless(t, true)
	rounds := either(1, 20)
	y := b.under(t, func() error {
		for range rounds {
			for _, n := range []int{8, 2, 4} {
				if out, err := b.client.Scale(t.Context(), "web", n, true, patience); err != nil || out.Outcome != "done" {
					return fmt.Errorf("scale to %d: %+v, %v", n, out, err)
				}
			}
		}
		return nil
	})
	if y.lost()+y.InHand > 0 && !strings.HasPrefix(level, "hash") {
		t.Errorf("scaling: %d of %d connections lost: %s, %d in hand", y.lost(), y.all(), y.losses(), y.InHand)
	}
	t.Logf("promise N2: as an ordinary user, %s: %d connections through %d replacements, %d lost; %d through %d SIGKILLs, %d lost, %d in the victims' hands, longest wait %s ms (nobody can move a queue: it is held until the instance is back); %d through %d changes of scale, %d lost",
		level, plan.tally.all(), 4*plan.events, plan.tally.lost(), kill.tally.all(), kill.events, kill.tally.lost(), kill.tally.InHand, ms(kill.tally.at(1)),
		y.all(), 3*rounds, y.lost()+y.InHand)
}
