package activation_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/sockd/sockd/activation"
)

// A web server in one call: it takes the sockets it was passed or listens on Addr,
// says READY=1, and drains at SIGTERM.
func ExampleServe() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel() // a real service passes context.Background() and leaves at SIGTERM
	srv := &http.Server{
		Addr:    "127.0.0.1:0",
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") }),
	}
	fmt.Println("served:", activation.Serve(ctx, srv))
	// Output: served: <nil>
}

func ExampleListeners() {
	listeners, err := activation.Listeners("http")
	if errors.Is(err, activation.ErrNotActivated) {
		fmt.Println("started by hand")
		return
	}
	if err != nil {
		fmt.Println(err) // "no socket is called …": the unit file and the program differ
		return
	}
	for _, l := range listeners {
		go http.Serve(l, nil)
	}
	// Output: started by hand
}

// A service that is no web server answers its readiness gate by itself: with
// ready = { tcp = true } it is ready once it has accepted a connection there.
func ExampleListeners_ready() {
	gates, err := activation.Listeners("ready")
	if err != nil && !errors.Is(err, activation.ErrNotActivated) {
		fmt.Println(err) // the unit has no such gate
	}
	for _, gate := range gates {
		go func() {
			for {
				c, err := gate.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
	}
	fmt.Println(len(gates), "gates")
	// Output: 0 gates
}

func ExamplePacketConns() {
	conns, err := activation.PacketConns("dns")
	fmt.Println(len(conns), errors.Is(err, activation.ErrNotActivated))
	// Output: 0 true
}

func ExampleFiles() {
	files, err := activation.Files()
	for _, f := range files {
		fmt.Println(f.Name(), f.Fd())
	}
	fmt.Println(err)
	// Output: activation: this process was given no sockets
}

func ExampleNames() {
	names, err := activation.Names()
	fmt.Println(names, err)
	// Output: [] activation: this process was given no sockets
}

// The same program runs under sockd, under systemd and by hand.
func ExampleListen() {
	l, err := activation.Listen(context.Background(), "http", "tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	fmt.Println(l.Addr().Network())
	// Output: tcp
}

func ExampleListenPacket() {
	c, err := activation.ListenPacket(context.Background(), "dns", "udp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	fmt.Println(c.LocalAddr().Network())
	// Output: udp
}

func ExampleInstance() {
	n, of := activation.Instance()
	fmt.Printf("worker %d of %d\n", n, of)
	// Output: worker 1 of 1
}

// A QUIC server that is told how to begin its connection ids begins each so.
func ExampleConnectionIDPrefix() {
	id := make([]byte, 12)
	n := copy(id, activation.ConnectionIDPrefix())
	rand.Read(id[n:])
	fmt.Println(n, "bytes are given") // 4 with flows = "quic"
	// Output: 0 bytes are given
}

// A stream of events ends when the server is told to leave, and so the drain does.
func ExampleServe_stream() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel() // a real service passes context.Background() and leaves at SIGTERM
	leaving := make(chan struct{})
	srv := &http.Server{
		Addr: "127.0.0.1:0",
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for tick := time.Tick(time.Second); ; {
				fmt.Fprintln(w, time.Now())
				http.NewResponseController(w).Flush()
				select {
				case <-tick:
				case <-leaving:
					return
				case <-r.Context().Done():
					return
				}
			}
		}),
	}
	srv.RegisterOnShutdown(func() { close(leaving) })
	fmt.Println("served:", activation.Serve(ctx, srv))
	// Output: served: <nil>
}

// What a service without net/http tells its supervisor, from start to end.
func ExampleNotify() {
	for _, err := range []error{
		activation.Ready(),
		activation.Status("serving %d clients", 3),
		activation.Reloading(),
		activation.Notify("READY=1", "STATUS=reloaded"),
		activation.Stopping(),
	} {
		fmt.Println(err) // nil too where nobody asked to be told
	}
	// Output:
	// <nil>
	// <nil>
	// <nil>
	// <nil>
	// <nil>
}

func ExampleReady() {
	fmt.Println(activation.Ready())
	// Output: <nil>
}

func ExampleReloading() {
	if err := activation.Reloading(); err != nil {
		fmt.Println(err)
	}
	// read the configuration again
	fmt.Println(activation.Ready())
	// Output: <nil>
}

func ExampleStopping() {
	fmt.Println(activation.Stopping())
	// Output: <nil>
}

func ExampleStatus() {
	fmt.Println(activation.Status("%d of %d files read", 3, 7))
	// Output: <nil>
}

// Wait until everything said has been read, before leaving.
func ExampleBarrier() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	fmt.Println(activation.Stopping(), activation.Barrier(ctx))
	// Output: <nil> <nil>
}

func ExampleWatchdog() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error)
	go func() { ended <- activation.Watchdog(ctx) }()
	fmt.Println(<-ended) // at once: nobody has asked for pings
	// Output: <nil>
}

// A service that keeps its state in a file without a name, over restarts.
func ExampleStored() {
	files, err := activation.Stored("state")
	if err != nil {
		fmt.Println(err)
		return
	}
	if len(files) > 0 {
		fmt.Println("going on from", files[0].Name())
		return
	}
	state, err := os.CreateTemp("", "state")
	if err != nil {
		fmt.Println(err)
		return
	}
	os.Remove(state.Name())
	err = activation.Store("state", state)
	if errors.Is(err, activation.ErrNoStore) {
		fmt.Println("started by hand: the state lasts as long as the process")
	}
	// Output: started by hand: the state lasts as long as the process
}

func ExampleStore() {
	err := activation.Store("log", os.Stdout)
	fmt.Println(err) // nil under a supervisor that keeps it
	// Output: activation: nobody keeps descriptors for this process
}

func ExampleForget() {
	err := activation.Forget("log")
	fmt.Println(errors.Is(err, activation.ErrNoStore))
	// Output: true
}
