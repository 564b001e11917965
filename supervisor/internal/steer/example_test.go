package steer_test

import (
	"errors"
	"fmt"

	"github.com/sockd/sockd/supervisor/internal/steer"
)

// A crash of one of three instances, as the supervisor sees it.
func Example() {
	var g steer.Group = steer.NewFake(3) // steer.Open(fds, steer.Best, steer.Options{})

	// All are ready.
	g.Set([]int{1, 1, 1})

	// web@2 has exited: steer away, and let those who wait be served by others.
	g.Set([]int{1, 0, 1})
	switch err := g.Flush(1); {
	case errors.Is(err, steer.ErrLast), errors.Is(err, steer.ErrNoMigration):
		fmt.Println("held:", err)
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Println("flushed")
	}

	// web@1 and web@3 as well: nobody is left, everybody holds.
	g.Set([]int{0, 0, 0})
	fmt.Println(g.Flush(0))

	// web@2 is ready again.
	g.Set([]int{0, 1, 0})
	fmt.Println(g.Flush(0), g.Flush(2))
	// Output:
	// flushed
	// no other place with a weight could take the connections
	// <nil> <nil>
}

// A fake lets a test see what becomes of clients.
func ExampleFake() {
	f := steer.NewFakeAt(steer.ClassicBPF, 2, false) // and net.ipv4.tcp_migrate_req is 0
	f.Set([]int{0, 1})
	fmt.Println("waits at", f.Connect(12345))
	f.Set([]int{1, 0})
	fmt.Println(f.Flush(1))
	fmt.Println("accepted:", f.Accept(1), "reset:", f.Resets())
	// Output:
	// waits at 1
	// connections cannot be moved (net.ipv4.tcp_migrate_req is 0)
	// accepted: true reset: 0
}
