package supervisor

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"
)

// What the process of an instance that is one too many has not read is answered by another.
func TestWhatAScaledAwayProcessHasNotRead(t *testing.T) {
	needRaw(t)
	for _, level := range []string{"", "classic-bpf", "hash"} {
		t.Run(level, func(t *testing.T) {
			t.Setenv(levelVariable, level)
			f := newFixture(t, "web", fmt.Sprintf(stickyUnit, 2, ""))
			t.Cleanup(func() { f.s.Kill() })
			f.do("start", "web", Done)
			flows := peers(t, f.address("web", "quic"), 40)
			second := f.unit("web").Instances[1].Runs[0].Pid
			i := slices.IndexFunc(flows, func(p *peer) bool { return p.pid == second })
			if i < 0 {
				t.Fatal("none of 40 flows is with the second instance")
			}
			fmt.Fprint(flows[i], "deaf")
			flows[i].SetDeadline(time.Now().Add(patience))
			if _, err := flows[i].Read(make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			sent := say(t, flows, second, 5)
			done := make(chan error, 1)
			go func() {
				_, err := f.s.scaleUnit(t.Context(), errand{unit: "web", wait: true}, 1)
				done <- err
			}()
			f.until("it drains", func() bool { return slices.Contains(f.draining(), second) })
			syscall.Kill(second, syscall.SIGKILL)
			for _, p := range flows {
				if p.pid == second {
					p.instance = 1 // to which it has moved
				}
			}
			if heard := hear(t, flows, second, 5); heard != sent {
				t.Errorf("%d answered, %d sent", heard, sent)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
