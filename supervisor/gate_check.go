package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/machine"
	"golang.org/x/sys/unix"
)

// The command of a gate is a run of its own, beside the one it asks about: the keeper
// lists it as web/ready@2.7, a name that no unit can have, so that no machine hears
// of it. What it writes goes to the log under that name.

// A check is one run of such a command.
type check struct {
	run   *run
	err   error          // what it found, when it has ended
	ended chan error     // told then, once
	after []keeper.Event // news that must wait until it has ended
}

const checkSuffix = "/ready"

func checkID(id keeper.ID) keeper.ID {
	id.Unit += checkSuffix
	return id
}

func isCheck(id keeper.ID) bool { return strings.HasSuffix(id.Unit, checkSuffix) }

// tryCommand runs the command once. It returns when no process of it is left.
func (s *Supervisor) tryCommand(ctx context.Context, g *gate) error {
	name := g.conf.Command[0]
	ended := make(chan error, 1)
	vars, err := readEnvironmentFiles(g.files)
	if err == nil {
		err = s.ask(ctx, func() error { return s.startCheck(g, vars, ended) })
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	once, cancel := context.WithTimeout(ctx, g.conf.Timeout)
	defer cancel()
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	case <-once.Done():
	case <-s.quit:
		return ErrEnded
	}
	s.ask(context.Background(), func() error {
		s.killCheck(checkID(g.run.id))
		return nil
	})
	select {
	case <-ended:
	case <-s.quit:
	}
	return fmt.Errorf("%s: not finished within %v", name, g.conf.Timeout)
}

// startCheck starts the command. Its fate goes to ended.
func (s *Supervisor) startCheck(g *gate, fromFiles []string, ended chan error) error {
	r, id := g.run, checkID(g.run.id)
	if r.gate != g {
		return errors.New("nobody wants to know any more")
	}
	if s.checks[id] != nil {
		return errors.New("the one before has not ended")
	}
	p, err := r.unit.checkProcess(r, g.conf.Command, fromFiles)
	if err != nil {
		return err
	}
	c := &check{run: &run{id: id, unit: r.unit, notify: -1, log: -1}, ended: ended}
	o, _, err := s.takeOutfit()
	if err != nil {
		return err
	}
	defer o.close()
	if err := s.openLog(c.run, o); err != nil {
		s.keeper.Release(c.run.held("log")) // if it came so far
		return err
	}
	p.Output = o.log[1]
	s.checks[id] = c
	s.live++
	s.processes++
	if err := s.keeper.Spawn(id, p); err != nil {
		c.err = err
		s.checkOver(c)
	}
	return nil
}

// checkProcess says what to start: what the service is, but for the command and for
// what only the service may use.
func (u *unit) checkProcess(r *run, argv, fromFiles []string) (keeper.Process, error) {
	p, err := u.process(r, "", nil, nil, fromFiles)
	p.Argv, p.Sockets, p.PidEnv, p.PidfdEnv = argv, nil, nil, nil
	p.Env = slices.DeleteFunc(p.Env, func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return ours(name) && !strings.HasPrefix(name, "SOCKD_")
	})
	p.Env = append(p.Env, "SOCKD_PID="+strconv.Itoa(r.pid))
	return p, err
}

func (s *Supervisor) killCheck(id keeper.ID) {
	if c := s.checks[id]; c != nil && !c.run.exited {
		s.signal(c.run.unit, id, unix.SIGKILL)
	}
}

// checkNews takes the keeper's news of a check.
func (s *Supervisor) checkNews(ev keeper.Event) {
	c := s.checks[ev.ID]
	if c == nil || c.run.exited || ev.Kind == keeper.Execed {
		return // or a supervisor before us has asked
	}
	if ev.Kind == keeper.SpawnFailed {
		c.err = errors.New(ev.Stage + ": " + ev.Err)
	} else if st := (machine.Status{Code: ev.Code, Signal: ev.Signal, Core: ev.Core}); st != (machine.Status{}) {
		c.err = errors.New(st.String())
	}
	s.checkOver(c)
}

// checkOver: no process of it is left. What it has written is still to be read.
func (s *Supervisor) checkOver(c *check) {
	c.run.exited = true
	s.processes--
	if c.run.logDone {
		s.checkDone(c)
	} else {
		s.logs.finish(c.run.logKey)
	}
	s.heard(c.after...)
}

// checkDone: it has ended and its output has been read.
func (s *Supervisor) checkDone(c *check) {
	delete(s.checks, c.run.id)
	s.live--
	c.ended <- c.err
}

// afterCheck keeps the news of a run's end until its check has ended too, so that no
// process of the unit is left when people hear of it. It says whether it did.
func (s *Supervisor) afterCheck(ev keeper.Event) bool {
	c := s.checks[checkID(ev.ID)]
	if c == nil || c.run.exited || ev.Kind == keeper.Execed {
		return false
	}
	c.after = append(c.after, ev)
	s.killCheck(c.run.id)
	return true
}

// dropChecks ends what a supervisor before us has asked, and forgets it. Whoever is
// still starting is asked again.
func (s *Supervisor) dropChecks(inv keeper.Inventory) {
	for _, c := range inv.Children {
		if !isCheck(c.ID) {
			continue
		}
		if err := s.keeper.Signal(c.ID, unix.SIGKILL); err != nil {
			s.log.Error("check not ended", "unit", c.ID.Unit, "instance", c.ID.Instance, "generation", c.ID.Gen, "err", err)
		}
		for _, ev := range c.Pending {
			s.keeper.Acknowledge(ev)
		}
	}
	for name := range inv.States {
		if rest, ok := strings.CutPrefix(name, restState); ok && strings.Contains(rest, checkSuffix+"@") {
			s.keeper.Save(name, nil) // an unfinished line
		}
	}
}
