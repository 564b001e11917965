package supervisor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
)

// Orphans are what a killed keeper has left behind: services that go on, with their
// sockets. Whoever takes the runtime folder next finds them by its records. It adopts
// them, or ends them; it never starts a second copy beside one.

// What becomes of orphans.
const (
	Adopt = "adopt" // go on with them: the same processes, the same sockets
	End   = "stop"  // end them and start anew
)

// orphans are what was found. Nil: nothing.
type orphans struct {
	dir     string // the runtime folder
	record  *keeper.Record
	sockets *socketsRecord
	runs    []*orphan      // that go on
	fds     map[string]int // sockets brought back, by the name they are held under
}

// An orphan is a run that lives.
type orphan struct {
	keeper.Survivor
	process *sys.Process // nil: the keeper lists it already, and a supervisor died
}

// findOrphans looks for what lives of the runs on record, ends what cannot or shall
// not be adopted, and has the sockets of the others held, as the inventory then says.
func (s *Supervisor) findOrphans(dir *runtimeDir, inv keeper.Inventory) (o *orphans, err error) {
	if _, kept := inv.Descriptors[keeper.RecordHeld]; kept {
		return nil, nil // the record is of the keeper that is there
	}
	if dir.path == "" {
		s.storedSockets(inv, nil)
		return nil, nil
	}
	record, err := keeper.ReadRecord(dir.path)
	if err != nil {
		return nil, fmt.Errorf("%w; sockd cannot know whether services of a killed one still run: end them, and remove %s/%s", err, dir.path, keeper.RecordName)
	}
	o = &orphans{dir: dir.path, record: record, fds: map[string]int{}}
	if o.sockets, err = readSockets(dir.path); err != nil {
		s.log.Warn("record of sockets set aside", "err", err)
		o.sockets = &socketsRecord{}
	}
	dir.made = append(dir.made, o.sockets.Made...)
	if err := dir.saveMade(s.keeper); err != nil {
		return nil, err
	}
	s.storedSockets(inv, o)
	var end []*orphan
	for _, r := range record.Runs {
		if i := slices.IndexFunc(inv.Children, func(c keeper.Child) bool { return c.ID == r.ID }); i >= 0 {
			switch c := inv.Children[i]; {
			case c.Last == 0 && s.cfg.Orphans != End:
				o.runs = append(o.runs, &orphan{r, nil})
			case !ended(c):
				end = append(end, &orphan{r, nil})
			default:
				s.orphanHeard(o, c)
			}
			continue
		}
		p := r.Find()
		if p == nil {
			s.endRest(r)
			s.orphanGone(o, r)
			continue
		}
		if !p.Pinned() {
			return nil, fmt.Errorf("%s: process %d of a sockd that was killed goes on, and it takes pidfd (Linux 5.4) to adopt or end it: end it", r.ID, p.Pid)
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
	for _, c := range inv.Children {
		if !slices.ContainsFunc(record.Runs, func(r keeper.Survivor) bool { return r.ID == c.ID }) {
			s.orphanHeard(o, c)
		}
	}
	s.endOrphans(o, end)
	return o, s.holdOrphans(o, inv)
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

// holdOrphans puts what was brought back where a supervisor before this one would
// have left it, and removes the paths of sockets that nobody has any more.
func (s *Supervisor) holdOrphans(o *orphans, inv keeper.Inventory) error {
	for name, fd := range o.fds {
		if err := s.keeper.Hold(name, fd); err != nil {
			return fmt.Errorf("hold %s: %w", name, err)
		}
		inv.Descriptors[name] = fd
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

// has says whether a run of the unit goes on.
func (o *orphans) has(unit string) bool {
	return o != nil && slices.ContainsFunc(o.runs, func(r *orphan) bool { return r.ID.Unit == unit })
}

// state is a unit's as if it had been saved: the sockets that are back, the runs that go
// on, what was wished, and no generation twice.
func (o *orphans) state(conf *units.Unit, now machine.Instant) readState {
	if o == nil {
		return readState{}
	}
	rec, lives := o.sockets.Units[conf.Name], o.has(conf.Name)
	wish := rec.Wish
	spec := machineSpec(conf)
	scaled := wish.Instances > 0 && conf.Service != nil && rec.Conf == confSum(conf)
	if scaled {
		spec.Instances = wish.Instances
	}
	m := machine.New(spec)
	m.Scaled, m.Paused = scaled, wish.Paused
	m.LastGen = max(rec.LastGen, o.record.LastGen[conf.Name])
	if lives {
		m.Up = !wish.Stopped
		var held []machine.Held
		for _, r := range o.runs {
			if r.ID.Unit == conf.Name {
				held = append(held, machine.Held{Instance: r.ID.Instance, Gen: r.ID.Gen, Running: true})
			}
		}
		m.Recover(now, held) // and once more when the keeper lists them: that says what to do
	}
	return readState{saved: &savedUnit{Version: stateVersion, Machine: m, New: !lives && !wish.Stopped}, sockets: rec.Sockets}
}

// spare is for a start that has failed: who lives goes on, and keeps its paths.
func (o *orphans) spare(all map[string]*unit) {
	if o == nil {
		return
	}
	for _, u := range all {
		for _, k := range u.sockets {
			if _, ok := o.fds[k.held]; ok {
				k.path = nil
			}
		}
	}
}

// adoptOrphans makes the keeper follow those that live, and takes up their output
// and what they say.
func (s *Supervisor) adoptOrphans(o *orphans, inv keeper.Inventory) {
	if o == nil {
		return
	}
	for _, r := range o.runs {
		if r.process == nil {
			continue
		}
		held := &run{id: r.ID}
		_, heard := inv.Descriptors[held.held("notify")]
		if address, ok := strings.CutPrefix(r.Mark, "NOTIFY_SOCKET="); ok && !heard {
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

// outdated says whether runs of a unit that go on are not what its file asks for now,
// and are to be replaced.
func (o *orphans) outdated(u *unit) bool {
	return o.has(u.conf.Name) && (o.sockets.Units[u.conf.Name].Conf != confSum(u.conf) ||
		slices.ContainsFunc(u.sockets, func(k *socket) bool { _, ok := o.fds[k.held]; return !ok }))
}
