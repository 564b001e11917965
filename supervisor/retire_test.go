package supervisor

import (
	"fmt"
	"net"
	"syscall"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/steer"
	"golang.org/x/sys/unix"
)

// needDeaf skips where a listener cannot be made deaf to who comes: Linux 6.18.44 wants
// CAP_NET_ADMIN for a filter of tcp, which nobody needed before.
func needDeaf(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) // one of package net would be of MPTCP
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := steer.Deafen(fd); err != nil {
		t.Skipf("needs CAP_NET_ADMIN: %v", err)
	}
}

// Where nothing is steered an instance that is one too many accepts who has come to it
// before it leaves, and nobody else comes.
func TestRetireWhereNothingIsSteered(t *testing.T) {
	needDeaf(t)
	for _, level := range []string{"hash", "off"} {
		t.Run(level, func(t *testing.T) {
			t.Setenv(levelVariable, level)
			f := newFixture(t, "web", fmt.Sprintf(siblings, "", 2, ""))
			f.do("start", "web", Done)
			address := f.address("web", "http")
			second := f.unit("web").Instances[1].Runs[0].Pid
			suspend(t, second)
			clients := f.crowd(1, 5)
			done := make(chan error, 1)
			go func() {
				out, err := f.s.scaleUnit(t.Context(), errand{unit: "web", wait: true}, 1)
				if err == nil && out.Outcome != Done {
					err = fmt.Errorf("%+v", out)
				}
				done <- err
			}()
			f.until("instance 2 retires", func() bool { return f.unit("web").Instances[1].State == "draining" })
			queued := f.unit("web").Sockets[1].Queued // the last packets of handshakes have come since
			late := gather(address, 8)                // half of them come to the deaf socket, and again a second later
			waitFor(t, "somebody has come to it", func() bool { return f.unit("web").Sockets[1].Drops > 0 })
			if k := f.unit("web").Sockets[1]; k.Queued != queued || !k.Retiring {
				t.Errorf("%d waited on the socket that retires: %+v", queued, k)
			}
			syscall.Kill(second, syscall.SIGCONT)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			wantServed(t, clients)
			late.leave()
			if late.failed.Load() > 0 {
				t.Errorf("%d of %d late clients lost: %v", late.failed.Load(), late.served.Load(), late.complaints())
			}
			t.Logf("promise N2: one of 2 instances leaves, steering %s: %d who waited and %d who came later, %d lost", level, len(clients), late.served.Load(), late.failed.Load())
		})
	}
}

// Where its socket cannot be made deaf, as the kernel does not let us or a service has
// locked it, who has come is accepted all the same.
func TestRetireOfASocketThatIsNotDeaf(t *testing.T) {
	t.Setenv(levelVariable, "hash")
	f := newFixture(t, "web", fmt.Sprintf(siblings, "", 2, ""))
	f.do("start", "web", Done)
	leaving := f.unit("web").Sockets[1]
	if err := steer.Lock(leaving.fd); err != nil {
		t.Fatal(err)
	}
	second := f.unit("web").Instances[1].Runs[0].Pid
	suspend(t, second)
	clients := f.crowd(1, 5)
	sc := f.beginScale(1)
	f.logged("queue goes on growing", 1)
	inv, err := f.keeper.Inventory()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range inv.Children {
		if c.Pid == second && c.Last != 0 {
			t.Errorf("it was sent %v while %d wait", c.Last, len(clients))
		}
	}
	syscall.Kill(second, syscall.SIGCONT)
	if out := sc.outcome(); out.Outcome != Done {
		t.Errorf("%+v", out)
	}
	wantServed(t, clients)
}

// Scaled up again, the instance gets connections again.
func TestRetiredInstanceComesBack(t *testing.T) {
	needDeaf(t)
	t.Setenv(levelVariable, "hash")
	f := newFixture(t, "web", fmt.Sprintf(siblings, "", 2, ""))
	f.do("start", "web", Done)
	address := f.address("web", "http")
	suspend(t, f.unit("web").Instances[1].Runs[0].Pid)
	for f.unit("web").Sockets[1].Queued == 0 { // so that it does not retire at once
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for _, n := range []int{1, 2} {
		if _, err := f.s.scaleUnit(t.Context(), errand{unit: "web"}, n); err != nil {
			t.Fatal(err)
		}
	}
	syscall.Kill(f.unit("web").Instances[1].Runs[0].Pid, syscall.SIGCONT)
	f.until("instance 2 is back", func() bool {
		in := f.unit("web").Instances[1]
		return in.State == "ready" && in.Starts == 2
	})
	for seen := 0; seen != 2; {
		a, err := ask("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		seen = a.instance
	}
}
