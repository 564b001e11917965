package supervisor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

// Orphans are what a killed keeper has left behind: services that go on, with their
// sockets. Whoever takes the runtime folder next finds them by its records. It adopts
// them, or ends them; it never starts a second copy beside one.

// What becomes of orphans.
const (
	Adopt = "adopt" // go on with them: the same processes, the same sockets
	End   = "stop"  // end them and start anew
)

// orphans are what was found.
type orphans struct {
	record  *keeper.Record
	sockets *socketsRecord
	runs    []*orphan      // to be adopted
	fds     map[string]int // sockets brought back, by the name they are held under
}

// An orphan is a run that lives.
type orphan struct {
	keeper.Survivor
	process *sys.Process
}

// findOrphans looks for what lives of the runs on record, ends what cannot or shall
// not be adopted, and brings the sockets of the others back. Nil: there is nothing.
func (s *Supervisor) findOrphans(dir *runtimeDir, inv keeper.Inventory) (*orphans, error) {
	if dir.path == "" {
		s.storedSockets(inv, nil)
		return nil, nil
	}
	record, err := keeper.ReadRecord(dir.path)
	if err != nil {
		return nil, fmt.Errorf("%w; sockd cannot know whether services of a killed one still run: end them, and remove %s/%s", err, dir.path, keeper.RecordName)
	}
	o := &orphans{record: record, fds: map[string]int{}}
	if o.sockets, err = readSockets(dir.path); err != nil {
		s.log.Warn("record of sockets set aside", "err", err)
		o.sockets = &socketsRecord{}
	}
	dir.made = append(dir.made, o.sockets.Made...)
	s.storedSockets(inv, o)
	var end []*orphan
	for _, r := range record.Runs {
		p := r.Find()
		if p == nil {
			s.endRest(r)
			continue
		}
		r.Process = p.Identity()
		one := &orphan{r, p}
		because := "asked by --orphans " + End
		if s.cfg.Orphans != End {
			because = s.bringBack(o, one)
		}
		if because == "" {
			o.runs = append(o.runs, one)
			continue
		}
		s.log.Warn("orphan ended", "unit", r.ID.Unit, "instance", r.ID.Instance, "generation", r.ID.Gen, "pid", p.Pid, "because", because)
		end = append(end, one)
	}
	s.endOrphans(end)
	return o, s.holdOrphans(o)
}

// bringBack takes the sockets that a run was given out of its hands, as duplicates.
// It says why the run cannot be adopted, or nothing.
func (s *Supervisor) bringBack(o *orphans, r *orphan) string {
	i := slices.IndexFunc(s.cfg.Units.Units, func(u *units.Unit) bool { return u.Name == r.ID.Unit })
	if i < 0 || s.cfg.Units.Units[i].Service == nil {
		return "its unit is not configured any more"
	}
	for n, k := range r.Sockets {
		if _, have := o.fds[k.Name]; have || !strings.HasPrefix(k.Name, "listen/") {
			continue
		}
		if !o.sockets.knows(r.ID.Unit, k.Name) {
			return "it is not on record what " + k.Name + " is"
		}
		fd, err := r.process.TakeSocket(3+n, k.Cookie)
		if err != nil {
			return err.Error()
		}
		o.fds[k.Name] = fd
	}
	return ""
}

// endRest ends what a run has left whose main process is dead.
func (s *Supervisor) endRest(r keeper.Survivor) {
	killed := 0
	if leaf := r.Leaf.Open(); leaf != nil {
		if empty, err := leaf.Empty(); err == nil && !empty {
			pids, _ := leaf.Procs()
			killed = len(pids)
			leaf.KillAll()
		}
		leaf.Remove()
	} else if r.Mark != "" {
		var sweeper sys.Sweeper
		if err := sweeper.KillRest(sys.Mark{Env: r.Mark, Foreign: true}, func(int) { killed++ }); err != nil {
			s.log.Warn("leftovers", "unit", r.ID.Unit, "err", err)
		}
	}
	if killed > 0 {
		s.log.Warn("leftovers ended", "unit", r.ID.Unit, "instance", r.ID.Instance, "generation", r.ID.Gen, "processes", killed)
	}
}

// orphanGrace is how long orphans have to leave whose unit is not configured or sets no limit.
const orphanGrace = 10 * time.Second

// A leaving orphan has been asked to end, and then killed.
type leaving struct {
	by     time.Time
	killed bool
}

// stopOf says how a run is asked to end, and how long it may take. A unit whose file
// sets no limit is not waited for without end: sockd could not begin.
func (s *Supervisor) stopOf(id keeper.ID) (sig unix.Signal, grace time.Duration) {
	for _, u := range s.cfg.Units.Units {
		if u.Name == id.Unit && u.Service != nil {
			return u.Service.StopSignal, cmp.Or(u.Service.StopTimeout, orphanGrace)
		}
	}
	return unix.SIGTERM, orphanGrace
}

// endOrphans ends runs in good order. The keeper takes them over for that; nothing
// else is listed yet, so that all its news is of them.
func (s *Supervisor) endOrphans(list []*orphan) {
	left := map[keeper.ID]*leaving{}
	for _, r := range list {
		r.process.Close()
		if err := s.keeper.Adopt(r.Survivor); err != nil {
			continue // it has just ended by itself
		}
		sig, grace := s.stopOf(r.ID)
		left[r.ID] = &leaving{by: time.Now().Add(grace)}
		s.keeper.Signal(r.ID, sig)
	}
	late := time.NewTimer(0)
	defer late.Stop()
	for len(left) > 0 {
		select {
		case ev := <-s.keeper.Events():
			if ev.Kind != keeper.Execed {
				delete(left, ev.ID)
			}
			s.keeper.Acknowledge(ev)
		case <-late.C:
			if next := s.killLate(left); len(left) > 0 {
				late.Reset(time.Until(next))
			}
		}
	}
}

// killLate kills those whose time is over, gives up on those that even that does not
// end, and says when to look again.
func (s *Supervisor) killLate(left map[keeper.ID]*leaving) (next time.Time) {
	for id, l := range left {
		if !time.Now().Before(l.by) {
			if l.killed {
				s.log.Error("orphan is stuck", "unit", id.Unit, "instance", id.Instance, "generation", id.Gen)
				delete(left, id)
				continue
			}
			s.keeper.Signal(id, unix.SIGKILL)
			l.by, l.killed = time.Now().Add(orphanGrace), true
		}
		if next.IsZero() || l.by.Before(next) {
			next = l.by
		}
	}
	return next
}

// holdOrphans puts what was brought back where a supervisor before this one would
// have left it, and removes the paths of sockets that nobody has any more.
func (s *Supervisor) holdOrphans(o *orphans) error {
	for name, fd := range o.fds {
		if err := s.keeper.Hold(name, fd); err != nil {
			return fmt.Errorf("hold %s: %w", name, err)
		}
	}
	for _, u := range o.sockets.Units {
		for _, k := range u.Sockets {
			if _, ok := o.fds[k.Held]; !ok && k.Path != nil {
				k.Path.Remove()
			}
		}
	}
	return nil
}

// recallOrphans gives a unit the sockets that were brought back.
func (s *Supervisor) recallOrphans(u *unit, o *orphans) {
	if o == nil {
		return
	}
	for _, k := range o.sockets.Units[u.conf.Name].Sockets {
		if fd, ok := o.fds[k.Held]; ok {
			u.sockets = append(u.sockets, k.open(fd))
		}
	}
	s.setOptions(u)
}

// spareOrphans is for a start that has failed: who lives goes on, and keeps its paths.
func (s *Supervisor) spareOrphans(o *orphans, dir *runtimeDir) {
	if o == nil {
		return
	}
	dir.keep = len(o.runs) > 0
	for _, u := range s.units {
		for _, k := range u.sockets {
			if _, ok := o.fds[k.held]; ok {
				k.path = nil
			}
		}
	}
}

// adoptOrphans makes the keeper follow those that live, and takes up their output
// and what they say.
func (s *Supervisor) adoptOrphans(o *orphans) {
	for _, r := range o.runs {
		held := &run{id: r.ID}
		if address, ok := strings.CutPrefix(r.Mark, "NOTIFY_SOCKET="); ok {
			fd, err := sys.NotifyAt(address)
			if err == nil {
				err = s.keeper.Hold(held.held("notify"), fd)
			}
			if err != nil {
				s.log.Warn("orphan is not heard", "run", r.ID.String(), "err", err)
			}
		}
		if r.Output != 0 {
			fd, err := r.process.ReopenPipe(r.Output)
			if err == nil {
				err = s.keeper.Hold(held.held("log"), fd)
			}
			if err != nil {
				s.log.Warn("orphan's output is lost", "run", r.ID.String(), "err", err)
			}
		}
		r.process.Close()
		if err := s.keeper.Adopt(r.Survivor); err != nil {
			s.log.Warn("orphan not adopted", "err", err)
			continue
		}
		s.log.Warn("orphan adopted", "unit", r.ID.Unit, "instance", r.ID.Instance, "generation", r.ID.Gen, "pid", r.Process.Pid,
			"because", fmt.Sprintf("the keeper with pid %d was killed", o.record.Keeper))
	}
}

// takeOrphans holds what was brought back, before anything is started. It returns
// the inventory as it is then.
func (s *Supervisor) takeOrphans(dir *runtimeDir) (keeper.Inventory, error) {
	if s.orphans != nil {
		s.adoptOrphans(s.orphans)
	}
	if err := s.keepRecords(dir); err != nil {
		s.log.Warn("no records: if the keeper is killed, nobody will know of its services", "err", err)
	}
	return s.keeper.Inventory()
}

// replaceOrphans replaces those that are not what their unit's file asks for now.
func (s *Supervisor) replaceOrphans() {
	for _, u := range s.sorted() {
		if s.orphans.changed(u) {
			s.log.Warn("orphans replaced", "unit", u.conf.Name, "because", "its file has changed")
			s.handle(u, machine.Replace{Upto: u.machine.LastGen})
		}
	}
	s.orphans = nil
	s.settleFollowing()
}

// outlived says up to which generation a unit has used them before its keeper was
// killed, as news of a run that has ended.
func (o *orphans) outlived(u *unit, held []machine.Held) []machine.Held {
	if o == nil || o.record.LastGen[u.conf.Name] == 0 || u.recalled {
		return held
	}
	last := o.record.LastGen[u.conf.Name]
	if len(held) == 0 {
		u.machine.LastGen = max(u.machine.LastGen, last)
		return nil
	}
	return append(held, machine.Held{Instance: 1, Gen: last, Ended: true})
}

// changed says whether adopted runs of a unit are not what its file asks for now, and
// are to be replaced.
func (o *orphans) changed(u *unit) bool {
	if o == nil || !slices.ContainsFunc(o.runs, func(r *orphan) bool { return r.ID.Unit == u.conf.Name }) {
		return false
	}
	return o.sockets.Units[u.conf.Name].Conf != confSum(u.conf) ||
		slices.ContainsFunc(u.sockets, func(k *socket) bool { _, ok := o.fds[k.held]; return !ok })
}
