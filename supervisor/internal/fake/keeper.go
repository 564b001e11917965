// Package fake has a keeper whose processes are played by the test, and a clock
// that moves when told. Neither starts or waits for anything real.
//
// The one thing to know: the keeper obeys the same contract test as the real one,
// and shares its bookkeeping; only the processes are make-believe.
package fake

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// A Keeper plays processes. After Spawn nothing happens by itself: the test says
// Exec, Fail, Exit or Die, there and then from OnSpawn and OnSignal, or later.
type Keeper struct {
	*keeper.Ledger

	// OnSpawn and OnSignal, if not nil, are called from Spawn and Signal, after the
	// keeper has taken note. Set them before the first call.
	OnSpawn  func(id keeper.ID, p keeper.Process)
	OnSignal func(id keeper.ID, sig unix.Signal)

	mu    sync.Mutex
	pid   int
	plays map[keeper.ID]*play
}

// A play is a run that has not ended.
type play struct {
	process  keeper.Process
	pid      int
	execed   bool
	giveBack func()
}

// NewKeeper makes one that holds nothing. Pids count from 1001.
func NewKeeper() *Keeper {
	return &Keeper{Ledger: keeper.NewLedger(), pid: 1000, plays: map[keeper.ID]*play{}}
}

// Obedient makes every process exec at once, exit with 0 on SIGTERM and SIGINT,
// and die of SIGKILL.
func (k *Keeper) Obedient() *Keeper {
	k.OnSpawn = func(id keeper.ID, _ keeper.Process) { k.Exec(id) }
	k.OnSignal = func(id keeper.ID, sig unix.Signal) {
		switch sig {
		case unix.SIGTERM, unix.SIGINT:
			k.Exit(id, 0)
		case unix.SIGKILL:
			k.Die(id, sig)
		}
	}
	return k
}

// Spawn implements keeper.Keeper.
func (k *Keeper) Spawn(id keeper.ID, p keeper.Process) error {
	if len(p.Argv) == 0 {
		return fmt.Errorf("%s: no program", id)
	}
	_, giveBack, err := k.List(id, p.Sockets)
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.pid++
	pid := k.pid
	k.plays[id] = &play{process: p, pid: pid, giveBack: giveBack}
	k.mu.Unlock()
	k.Born(id, pid)
	if k.OnSpawn != nil {
		k.OnSpawn(id, p)
	}
	return nil
}

// Signal implements keeper.Keeper.
func (k *Keeper) Signal(id keeper.ID, sig unix.Signal) error {
	if k.Signalled(id, sig) && k.OnSignal != nil {
		k.OnSignal(id, sig)
	}
	return nil
}

// SetMain implements keeper.Keeper: every pid but 0 and 1 is one of the run's.
func (k *Keeper) SetMain(id keeper.ID, pid int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.plays[id]
	if p == nil || pid <= 1 {
		return fmt.Errorf("%s: process %d is no living process of this run", id, pid)
	}
	p.pid = pid
	return nil
}

// Adopt implements keeper.Keeper: nothing survives a keeper that plays.
func (k *Keeper) Adopt(s keeper.Survivor) error { return fmt.Errorf("%s: its process has ended", s.ID) }

// Process returns what a run that has not ended was started with.
func (k *Keeper) Process(id keeper.ID) (keeper.Process, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.plays[id]; p != nil {
		return p.process, true
	}
	return keeper.Process{}, false
}

// Exec makes the run's program run. It panics, as all of these do, if the run is
// not there to do so: then the test is wrong.
func (k *Keeper) Exec(id keeper.ID) {
	p := k.take(id, true)
	p.giveBack()
	k.Post(keeper.Event{ID: id, Kind: keeper.Execed, Pid: p.pid})
}

// Fail makes the start fail in stage, because of err.
func (k *Keeper) Fail(id keeper.ID, stage, err string) {
	p := k.take(id, false)
	if p.execed {
		panic(fmt.Sprintf("%s: fails to start, but is running", id))
	}
	p.giveBack()
	k.Post(keeper.Event{ID: id, Kind: keeper.SpawnFailed, Stage: stage, Err: err})
}

// Exit makes the run exit with code.
func (k *Keeper) Exit(id keeper.ID, code int) { k.end(id, keeper.Event{Code: code}) }

// Die makes the run die of sig.
func (k *Keeper) Die(id keeper.ID, sig unix.Signal) { k.end(id, keeper.Event{Signal: int(sig)}) }

func (k *Keeper) end(id keeper.ID, ev keeper.Event) {
	p := k.take(id, false)
	if !p.execed { // the real thing says so too when a child is killed before exec
		p.giveBack()
		k.Post(keeper.Event{ID: id, Kind: keeper.SpawnFailed, Stage: "killed", Err: "before exec"})
		return
	}
	ev.ID, ev.Kind, ev.Pid = id, keeper.Exited, p.pid
	k.Post(ev)
}

// take finds a run that has not ended, and either lets it begin or ends it.
func (k *Keeper) take(id keeper.ID, begin bool) play {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.plays[id]
	if p == nil || begin && p.execed {
		panic(fmt.Sprintf("%s: no such run in this state", id))
	}
	if begin {
		p.execed = true
	} else {
		delete(k.plays, id)
	}
	return *p
}
