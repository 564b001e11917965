package supervisor

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"sync"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"golang.org/x/sys/unix"
)

// A spill is the last resort: where supervisors die in safe mode too, it may be the output
// of services that kills them. Then this throws it away unseen, so that nobody waits in a
// write, and counts it. The next ordinary supervisor says how much it was.
type spill struct {
	watch *sys.Watcher
	save  func(name string, state []byte) error

	mu     sync.Mutex
	pipes  []leak // by watch key
	counts map[keeper.ID]int
}

// A leak is the log pipe of a run.
type leak struct {
	id keeper.ID
	fd int
}

// spiltState is what the names of saved counts of bytes begin with that were thrown away.
const spiltState = "spilt/"

// newSpill throws away what is in the pipes that the keeper holds, and what comes. What
// supervisors had in hand when they died goes too: it may be what they died of.
func newSpill(k keeper.Keeper, inv keeper.Inventory) (*spill, error) {
	w, err := sys.NewWatcher()
	if err != nil {
		return nil, err
	}
	p := &spill{watch: w, save: k.Save, counts: map[keeper.ID]int{}}
	for name, count := range inv.States {
		if id, ok := runNamed(name, spiltState); ok {
			p.counts[id], _ = strconv.Atoi(string(count))
		}
	}
	var last keeper.ID // the run whose last line, without an end, was on its way
	if fd := inv.Descriptors[takenHeld[0]]; fd > 0 && inPipe(fd) > 0 {
		var o owner
		json.Unmarshal(inv.States[outState], &o)
		id := keeper.ID{Unit: o.Unit, Instance: o.Instance, Gen: o.Gen}
		p.empty(leak{id, fd})
		if o.Last {
			last = id
			p.count(id, len(o.Rest))
		}
		if fd := inv.Descriptors[madeHeld[0]]; fd > 0 { // the same, as lines
			p.empty(leak{fd: fd})
		}
	}
	for name, rest := range inv.States {
		if id, ok := runNamed(name, restState); ok {
			if id != last {
				p.count(id, len(rest))
			}
			k.Save(name, nil)
		}
	}
	for held, fd := range inv.Descriptors {
		if id, ok := logOf(held); ok {
			err = errors.Join(err, w.Arm(fd, uint64(len(p.pipes))))
			p.pipes = append(p.pipes, leak{id, fd})
		}
	}
	go p.run()
	return p, err
}

// runNamed is the run that a saved state is about whose name begins so.
func runNamed(name, prefix string) (keeper.ID, bool) {
	run, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return keeper.ID{}, false
	}
	return logOf("log/" + run)
}

func (p *spill) run() {
	keys := make([]uint64, 256)
	for {
		n, err := p.watch.Wait(keys)
		if err != nil {
			return
		}
		for _, key := range keys[:n] {
			p.mu.Lock()
			if l := p.pipes[key]; p.empty(l) {
				p.watch.Arm(l.fd, key)
			}
			p.mu.Unlock()
		}
	}
}

// empty throws away what is in a pipe, and says whether there was anything: one that is
// readable and empty is at its end.
func (p *spill) empty(l leak) bool {
	n := inPipe(l.fd)
	for buf, left := make([]byte, min(n, 64<<10)), n; left > 0; {
		m, err := unix.Read(l.fd, buf[:min(left, len(buf))])
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
		left -= max(m, 0)
	}
	p.count(l.id, n)
	return n > 0
}

func (p *spill) count(id keeper.ID, n int) {
	if n > 0 && id.Unit != "" {
		p.counts[id] += n
		p.save(spiltState+id.String(), strconv.AppendInt(nil, int64(p.counts[id]), 10))
	}
}

// close ends it, once what is in the pipes has been counted. A nil one is none.
func (p *spill) close() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.pipes {
		p.empty(l)
	}
	p.watch.Close()
}

// spilt ends it and says what it has thrown away.
func (s *Supervisor) spilt() {
	s.spill.close()
	if inv, err := s.keeper.Inventory(); err == nil {
		s.tellSpilt(inv)
	}
}

// tellSpilt says what was thrown away, and forgets it.
func (s *Supervisor) tellSpilt(inv keeper.Inventory) {
	for name, count := range inv.States {
		if id, ok := runNamed(name, spiltState); ok {
			s.log.Warn("output thrown away", "unit", id.Unit, "instance", id.Instance, "generation", id.Gen, "bytes", string(count))
			s.keeper.Save(name, nil)
		}
	}
}
