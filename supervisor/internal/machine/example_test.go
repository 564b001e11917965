package machine_test

import (
	"fmt"
	"time"

	"github.com/sockd/sockd/supervisor/internal/machine"
)

// A unit on demand, from its first caller to a failure.
func ExampleUnit_Step() {
	u := machine.New(machine.Spec{
		Instances: 1, OnDemand: true, Shared: true, Notify: true,
		StartTimeout: 30 * time.Second, StopTimeout: 30 * time.Second,
		Restart: machine.OnFailure, Delay: 100 * time.Millisecond, DelayMax: 30 * time.Second, Reset: 10 * time.Second,
	})
	now := machine.Instant(time.Hour) // CLOCK_BOOTTIME
	for _, ev := range []machine.Event{
		machine.Start{},
		machine.Connected{},
		machine.Notified{Instance: 1, Gen: 1, Ready: true},
		machine.Exited{Instance: 1, Gen: 1, Status: machine.Status{Code: 1}, Jitter: 0.5},
	} {
		fmt.Printf("%T\n", ev)
		for _, action := range u.Step(now, ev) { // save u before performing them
			fmt.Printf("  %+v\n", action)
		}
	}
	at, _ := u.Deadline()
	fmt.Println("tick in", time.Duration(at-now))
	// Output:
	// machine.Start
	//   {Instance:0}
	//   {Instance:1 Gen:0 From:stopped To:idle Because: For:0s}
	// machine.Connected
	//   {Instance:1 Gen:1}
	//   {Instance:1 Gen:1 From:idle To:starting Because:connection For:0s}
	// machine.Notified
	//   {Instance:1 Gen:1 From:starting To:ready Because: For:0s}
	// machine.Exited
	//   {Instance:1 Gen:1 From:ready To:backoff Because:exit status 1 For:100ms}
	// tick in 100ms
}
