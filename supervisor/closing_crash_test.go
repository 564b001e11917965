package supervisor

import (
	"encoding/json"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"golang.org/x/sys/unix"
)

// A silent keeper notes that a run was told to leave, and does not tell it.
type silent struct {
	*keeper.Local
	told chan struct{}
}

func (k *silent) Signal(id keeper.ID, sig unix.Signal) error {
	if sig != unix.SIGTERM {
		return k.Local.Signal(id, sig)
	}
	k.Signalled(id, sig)
	close(k.told)
	return nil
}

// The socket of an instance that was one too many, and took no notice of new connections
// when the supervisor died, takes notice again when the instance is wanted again.
func TestRetiredInstanceComesBackAfterACrash(t *testing.T) {
	for _, level := range []string{"hash", "off"} {
		t.Run(level, func(t *testing.T) {
			t.Setenv(levelVariable, level)
			f := prepare(t, "web", fmt.Sprintf(siblings, "", 2, `stop_timeout = "10m"`))
			told := make(chan struct{})
			f.wrap = &silent{f.keeper, told}
			f.start()
			t.Cleanup(func() { f.s.Kill() })
			f.do("start", "web", Done)
			second := f.unit("web").Instances[1].Runs[0].Pid
			if _, err := f.s.scaleUnit(t.Context(), errand{unit: "web"}, 1); err != nil {
				t.Fatal(err)
			}
			<-told
			f.crash()
			f.wrap = nil
			f.start()
			if _, err := f.s.scaleUnit(t.Context(), errand{unit: "web"}, 2); err != nil {
				t.Fatal(err)
			}
			kill(t, second)
			f.until("instance 2 is back", func() bool {
				in := f.unit("web").Instances[1]
				return in.State == "ready" && in.Starts == 2
			})
			late := gather(f.address("web", "http"), 8)
			for drops := f.unit("web").Sockets[1].Drops; late.served.Load() < 200 && late.failed.Load() == 0; {
				if now := f.unit("web").Sockets[1].Drops; now > drops {
					t.Fatalf("%d first packets were dropped", now-drops)
				}
				runtime.Gosched()
			}
			late.leave()
			if late.failed.Load() > 0 {
				t.Errorf("%d lost: %v", late.failed.Load(), late.complaints())
			}
		})
	}
}

// A stillborn keeper ends the supervisor that has saved a unit with fewer instances, before it
// does anything about it.
type stillborn struct {
	keeper.Keeper
	most int
	end  func()
	done atomic.Bool
}

func (k *stillborn) Save(name string, state []byte) error {
	err := k.Keeper.Save(name, state)
	var saved savedUnit
	if name == "web" && json.Unmarshal(state, &saved) == nil && saved.Machine != nil && len(saved.Machine.Instances) == k.most && k.done.CompareAndSwap(false, true) {
		k.end()
	}
	return err
}

// The supervisor may die when it has decided that an instance is no more, and has done nothing about its
// socket: what its process has not read comes to the others all the same.
func TestScaledAwayAndNotYetClosed(t *testing.T) {
	needRaw(t)
	for _, level := range []string{"", "classic-bpf", "hash", "off"} {
		t.Run(level, func(t *testing.T) {
			t.Setenv(levelVariable, level)
			f := prepare(t)
			k := &stillborn{Keeper: f.keeper, most: 1}
			f.wrap = k
			f.write("web", fmt.Sprintf(stickyUnit, 2, ""))
			f.start()
			t.Cleanup(func() { f.s.Kill() })
			f.do("start", "web", Done)
			before := f.unit("web").Sockets
			flows := peers(t, f.address("web", "quic"), 40)
			second := f.unit("web").Instances[1].Runs[0].Pid
			deafen(t, flowOf(t, flows, second))
			sent := say(t, flows, second, 5)
			dead := make(chan struct{})
			s := f.s
			k.end = func() {
				s.crashed = errAbrupt
				close(dead)
				runtime.Goexit()
			}
			if _, err := f.s.scaleUnit(t.Context(), errand{unit: "web"}, 1); err != nil {
				t.Fatal(err)
			}
			kill(t, second)
			<-dead
			<-s.quit
			f.ended = nil
			f.start()
			moved(flows, second, 1)
			if heard := hear(t, flows, second, 5); heard != sent {
				t.Errorf("%d answered, %d sent", heard, sent)
			}
			if after := f.unit("web").Sockets; after[0].Steering != before[0].Steering || len(after) != len(before)/2 {
				t.Errorf("%+v, %+v before", after, before)
			}
			t.Logf("promise N3: an instance is scaled away, steering %s, the supervisor dies before it closes its socket: %d datagrams, each answered", level, sent)
		})
	}
}
