package supervisor

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const onDemand = `
[service]
role = serve
ready = "notify"
[socket.http]
listen = "tcp://127.0.0.1:0"
`

func TestFirstConnectionStartsTheService(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	if st := f.unit("web"); st.State != "idle" || st.Instances[0].Starts != 0 {
		t.Fatalf("before: %s, %d starts", st.State, st.Instances[0].Starts)
	}
	a, err := ask("tcp", f.address("web", "http"))
	if err != nil {
		t.Fatal(err)
	}
	f.awaitState("web", 1, "ready")
	st := f.unit("web")
	if st.State != "ready" || st.Instances[0].Runs[0].Pid != a.pid || a.instance != 1 {
		t.Fatalf("answer %+v, status %+v", a, st.Instances[0])
	}
}

func TestCrowdStartsOneRun(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	address := f.address("web", "http")
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if a, err := ask("tcp", address); err != nil || a.gen != 1 {
				t.Errorf("%+v, %v", a, err)
			}
		})
	}
	wg.Wait()
	if st := f.unit("web"); st.Instances[0].Starts != 1 {
		t.Fatalf("%d starts", st.Instances[0].Starts)
	}
}

func TestPerInstanceSocketsEachHaveTheirOwn(t *testing.T) {
	f := newFixture(t, "web", `
[service]
role = serve
ready = "notify"
instances = 3
[socket.http]
listen = "tcp://127.0.0.1:0"
per_instance = true
`)
	st := f.unit("web")
	if len(st.Sockets) != 3 {
		t.Fatalf("%d sockets", len(st.Sockets))
	}
	inodes := map[uint64]bool{}
	for _, k := range st.Sockets {
		inodes[k.Inode] = true
		if k.Address != st.Sockets[0].Address {
			t.Fatalf("siblings on %s and %s", k.Address, st.Sockets[0].Address)
		}
	}
	if len(inodes) != 3 {
		t.Fatalf("%d different sockets", len(inodes))
	}
	seen := map[int]int{}
	for i := 0; i < 1000 && len(seen) < 3; i++ {
		a, err := ask("tcp", st.Sockets[0].Address)
		if err != nil {
			t.Fatal(err)
		}
		seen[a.instance]++
	}
	if len(seen) != 3 {
		t.Fatalf("answers by instance: %v", seen)
	}
}

func TestStoppedUnitKeepsItsQueue(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	address := f.address("web", "http")
	if _, err := ask("tcp", address); err != nil {
		t.Fatal(err)
	}
	f.do("stop", "web", Done)
	if st := f.unit("web"); st.State != "stopped" || len(st.Instances[0].Runs) != 0 {
		t.Fatalf("%+v", st)
	}
	answers := make(chan error, 10)
	for range 10 {
		c, err := net.Dial("tcp", address) // the queue takes it; nobody answers yet
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			_, err := c.Read(make([]byte, 1))
			answers <- err
		}()
	}
	waitFor(t, "all to be in the queue", func() bool { return f.unit("web").Sockets[0].Queued == 10 })
	if st := f.unit("web"); st.Instances[0].Starts != 1 {
		t.Fatalf("%d starts", st.Instances[0].Starts)
	}
	f.do("start", "web", Done)
	for range 10 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}

func TestDatagramStartsTheService(t *testing.T) {
	f := newFixture(t, "dns", `
[service]
role = datagram
[socket.dns]
listen = "udp://127.0.0.1:0"
`)
	c, err := net.Dial("udp", f.address("dns", "dns"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	for i := range 5 {
		fmt.Fprintf(c, "hello %d", i)
	}
	buf := make([]byte, 100)
	answered := map[string]int{}
	for range 5 { // N3: those sent before anybody was there are still there; in any order, as for udp
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("%v, then %v", answered, err)
		}
		answered[string(buf[:n])]++
	}
	for i := range 5 {
		if want := fmt.Sprintf("hello %d", i); answered[want] != 1 {
			t.Errorf("%q was answered %d times: %v", want, answered[want], answered)
		}
	}
}

func init() {
	roles["datagram"] = func() {
		pc, err := net.FilePacketConn(os.NewFile(3, ""))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(95)
		}
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(buf[:n], from)
		}
	}
	// Does to everybody's listener what only its own should suffer, and ends.
	roles["shutdown"] = func() { syscall.Shutdown(3, syscall.SHUT_RDWR) }
	// Takes away its own Unix path, as php-fpm does, and ends.
	roles["unlink"] = func() {
		os.Remove(os.Getenv("TEST_PATH"))
		waitTERM()
	}
}

func TestPathThatAServiceUnlinksComesBack(t *testing.T) {
	f := prepare(t)
	path := filepath.Join(f.dir, "s.sock")
	f.write("web", `
[service]
role = unlink TEST_PATH=`+path+`
start = "boot"
[socket.http]
listen = "unix://`+path+`"
`)
	f.start()
	before := f.unit("web").Sockets[0].Inode
	f.until("unlinked", func() bool { return f.unit("web").State == "ready" })
	f.healed("path restored", 1)
	f.do("stop", "web", Done)
	f.write("web", `
[service]
role = serve
start = "boot"
[socket.http]
listen = "unix://`+path+`"
`)
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.do("start", "web", Done)
	if _, err := ask("unix", path); err != nil {
		t.Fatal(err)
	}
	if after := f.unit("web").Sockets[0].Inode; after != before {
		t.Fatalf("socket %d has become %d", before, after)
	}
	f.stop()
	if left, _ := filepath.Glob(filepath.Join(f.dir, ".*sock*")); len(left) > 0 {
		t.Fatalf("left over: %v", left)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Fatal("the path is left")
	}
}

func TestListenerBeyondHealingIsBoundAgain(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			f := prepare(t)
			address := "tcp://127.0.0.1:0"
			if network == "unix" {
				address = "unix://" + filepath.Join(f.dir, "s.sock")
			}
			f.write("web", `
[service]
role = shutdown
restart_delay = "10ms"
[socket.s]
listen = "`+address+`"
`)
			f.start()
			if c, err := net.Dial(network, f.address("web", "s")); err != nil {
				t.Fatal(err)
			} else {
				c.Close()
			}
			f.awaitState("web", 1, "exited")
			f.write("web", strings.Replace(strings.Replace(onDemand, "socket.http", "socket.s", 1), "tcp://127.0.0.1:0", address, 1))
			if err := f.s.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := ask(network, f.address("web", "s")); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(f.log.String(), "listening again") {
				t.Error("nothing was said")
			}
		})
	}
}

// waitFor looks every millisecond: for what only the kernel knows.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	late := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(late) {
			t.Fatalf("not in time: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

func TestBindFailureStartsNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	f := prepare(t, "a", `
[service]
role = print TEST_TEXT=started
start = "boot"
`, "web", strings.Replace(onDemand, "127.0.0.1:0", taken.Addr().String(), 1))
	err = f.tryStart()
	if err == nil || !strings.Contains(err.Error(), "unit web: socket http: ") || !strings.Contains(err.Error(), "address already in use") {
		t.Fatalf("error: %v", err)
	}
	if !strings.Contains(err.Error(), "sockd itself") { // the listener above is this process's
		t.Errorf("the error does not name the owner: %v", err)
	}
	if strings.Contains(f.out.String(), "started") {
		t.Error("another unit was started all the same")
	}
}
